// Packs what was built, once and well, so that the controller need not.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { brotliCompressSync, constants, gzipSync } from 'node:zlib'

const dist = new URL('../dist/', import.meta.url)
for (const entry of readdirSync(dist, { recursive: true, withFileTypes: true })) {
  if (!entry.isFile() || !/\.(js|css|html|svg|json)$/.test(entry.name)) continue
  const path = `${entry.parentPath ?? entry.path}/${entry.name}`
  const bytes = readFileSync(path)
  if (bytes.length < 1024) continue
  const quality = { params: { [constants.BROTLI_PARAM_QUALITY]: 11 } }
  for (const [ending, packed] of [
    ['.br', brotliCompressSync(bytes, quality)],
    ['.gz', gzipSync(bytes, { level: 9 })],
  ]) {
    if (packed.length < bytes.length) writeFileSync(path + ending, packed)
  }
}
