// What the first view loads, compressed: the script of index.html and all that it imports at once.
// Exit 1 if it is more than the budget.
import { readFileSync } from 'node:fs'
import { gzipSync } from 'node:zlib'

const BUDGET = 300 * 1000
const dist = new URL('../dist/', import.meta.url)
const html = readFileSync(new URL('index.html', dist), 'utf8')

const seen = new Set()
const queue = [...html.matchAll(/(?:src|href)="\/(assets\/[^"]+\.js)"/g)].map((m) => m[1])
let total = 0
while (queue.length > 0) {
  const file = queue.pop()
  if (seen.has(file)) continue
  seen.add(file)
  const code = readFileSync(new URL(file, dist))
  total += gzipSync(code).length
  // Static imports only: what a page loads by itself is not of the first view.
  for (const [, name] of code.toString().matchAll(/(?:^|[;}])\s*(?:import|export)[^"'()]*?["']\.\/([^"']+\.js)["']/g)) {
    queue.push(`assets/${name}`)
  }
}
const kilo = (bytes) => `${(bytes / 1000).toFixed(1)} kB`
console.log(`first view: ${kilo(total)} of script in ${seen.size} files, compressed; allowed are ${kilo(BUDGET)}`)
if (seen.size === 0 || total > BUDGET) process.exit(1)
