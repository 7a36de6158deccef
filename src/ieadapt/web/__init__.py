"""The web app: forms made from the configs of the command line, the same runs, their folders shown in a browser."""
