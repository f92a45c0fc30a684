/** `env=prod, site=ams` as an object. What has no `=` is passed on, so that the controller says what is wrong with it. */
export function parseLabels(text: string): Record<string, string> {
  const labels: Record<string, string> = {}
  for (const part of text.split(/[,\s]+/)) {
    if (part === '') continue
    const at = part.indexOf('=')
    labels[at < 0 ? part : part.slice(0, at)] = at < 0 ? '' : part.slice(at + 1)
  }
  return labels
}

export function sayLabels(labels: Record<string, string>): string {
  return Object.entries(labels)
    .map(([key, value]) => `${key}=${value}`)
    .join(', ')
}
