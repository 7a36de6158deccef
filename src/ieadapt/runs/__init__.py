"""What every task uses: run folders, flags, report parts, video files."""
