// What pages do in the browser: the readout of a heat map, and clips that play in step. No request is made here.
(() => {
  const pairOf = element => element.closest('.pair');
  const videosOf = pair => [...pair.querySelectorAll('video')];
  const FRAME = 1 / 8;

  const readout = event => {
    const cells = event.target.closest('.layer');
    if (!cells) return;
    const values = cells.dataset.ep.trim().split(' ');
    const steps = cells.dataset.steps.split(' ');
    const box = cells.querySelector('.cells').getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const line = cells.closest('.heat').querySelector('.readout');
    const inside = event.clientX !== undefined && share >= 0 && share < 1;
    const at = inside ? Math.floor(share * values.length) : -1;
    line.textContent = inside
      ? `${cells.dataset.site}, step ${steps[at]}: EP ${values[at]} %`
      : `${cells.dataset.site}: EP from ${Math.min(...values)} to ${Math.max(...values)} %`;
  };
  document.addEventListener('mousemove', readout);
  document.addEventListener('focusin', readout);

  const follow = pair => {
    const [first, second] = videosOf(pair);
    if (Math.abs(first.currentTime - second.currentTime) > 0.05) second.currentTime = first.currentTime;
    const place = pair.querySelector('.place');
    if (first.duration && document.activeElement !== place) place.value = 1000 * first.currentTime / first.duration;
  };
  const play = (pair, on) => {
    videosOf(pair).forEach(video => on ? video.play().catch(() => {}) : video.pause());
    pair.querySelector('[data-do="play"]').textContent = on ? 'Pause' : 'Play';
  };
  const go = (pair, time) => {
    play(pair, false);
    const first = videosOf(pair)[0];
    const last = Math.max((first.duration || 0) - 0.001, 0);
    videosOf(pair).forEach(video => { video.currentTime = Math.min(Math.max(time, 0), last); });
    follow(pair);
  };

  document.addEventListener('click', event => {
    const button = event.target.closest('.pair [data-do]');
    if (!button) return;
    const pair = pairOf(button), first = videosOf(pair)[0];
    if (button.dataset.do === 'play') play(pair, first.paused);
    if (button.dataset.do === 'back') go(pair, first.currentTime - FRAME);
    if (button.dataset.do === 'forward') go(pair, first.currentTime + FRAME);
    if (button.dataset.do === 'view') {
      const side = pair.dataset.view !== 'side';
      pair.dataset.view = side ? 'side' : 'slider';
      button.textContent = side ? 'Slider' : 'Side by side';
    }
  });
  document.addEventListener('input', event => {
    const pair = event.target.closest && pairOf(event.target);
    if (!pair) return;
    if (event.target.classList.contains('cut')) pair.style.setProperty('--cut', `${event.target.value}%`);
    if (event.target.classList.contains('place')) go(pair, event.target.value / 1000 * (videosOf(pair)[0].duration || 0));
  });
  ['timeupdate', 'seeked'].forEach(name => document.addEventListener(name, event => {
    const pair = event.target.closest && pairOf(event.target);
    if (pair && videosOf(pair)[0] === event.target) follow(pair);
  }, true));
  document.addEventListener('loadeddata', event => {
    const pair = event.target.closest && pairOf(event.target);
    if (pair && matchMedia('(prefers-reduced-motion: reduce)').matches) play(pair, false);
  }, true);

  // what events of the pages call: see page.py
  window.ieadapt = {
    toAddress: (parameter, name) => {
      const query = new URLSearchParams(location.search);
      name ? query.set(parameter, name) : query.delete(parameter);
      history.replaceState(null, '', location.pathname + (query.size ? '?' + query : ''));
    },
    bringIntoView: workflow => {
      // Looks again until it stays in sight: what is new may be drawn later than the event ends, and may move.
      const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
      const stop = new AbortController();
      ['wheel', 'touchmove', 'keydown'].forEach(name => addEventListener(name, () => stop.abort(), {signal: stop.signal}));
      const look = (looks, seen) => {
        if (stop.signal.aborted || looks === 0 || seen === 2) return stop.abort();
        const parts = ['notice', 'progress', 'outcome'].map(part => document.getElementById(`${part}-of-${workflow}`));
        const first = parts.find(part => part && part.textContent.trim());
        const {top, bottom, height} = first ? first.getBoundingClientRect() : {};
        const high = height > innerHeight;
        const outside = first && (top < 0 || (high ? top : bottom) > innerHeight);
        if (outside) first.scrollIntoView({behavior: calm ? 'auto' : 'smooth', block: high ? 'start' : 'center'});
        setTimeout(look, 300, looks - 1, first && !outside ? seen + 1 : 0);
      };
      setTimeout(look, 50, 30, 0);
    },
    pick: (event, element, trigger) => {
      const chosen = event.target.closest('[data-site]');
      if (!chosen) return;
      const several = chosen.closest('[data-several]');
      const rows = [...element.querySelectorAll('[data-site]')];
      if (!several) rows.forEach(row => row.setAttribute('aria-pressed', 'false'));
      chosen.setAttribute('aria-pressed', several && chosen.getAttribute('aria-pressed') === 'true' ? 'false' : 'true');
      const pressed = rows.filter(row => row.getAttribute('aria-pressed') === 'true').map(row => row.dataset.site);
      trigger('select', {index: 0, value: pressed});
    },
  };
})();
