// Before the first paint, so that a page does not flash in the other theme. See stores/preferences.ts.
;(function () {
  var kept = null
  try {
    kept = localStorage.getItem('xdpgate.theme')
  } catch (e) {
    // Storage may be forbidden: then the system's theme it is.
  }
  var dark = matchMedia('(prefers-color-scheme: dark)').matches
  var contrast = matchMedia('(prefers-contrast: more)').matches
  document.documentElement.dataset.theme =
    kept && kept !== 'system' ? kept : contrast ? 'contrast' : dark ? 'dark' : 'light'
})()
