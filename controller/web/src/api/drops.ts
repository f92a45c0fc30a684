// Sampled drops, as nodes see them: a stream that is read as long as somebody looks.
import { onScopeDispose, ref, type Ref, shallowRef, watch } from 'vue'

export interface Drop {
  id: number
  node: string
  time: string | null
  interface: string
  queue: number
  disposition: 'drop' | 'would_drop'
  reason: string
  rule: string | null
  length: number
  source: string
  destination: string
  protocol: number | string | null
  source_port: number | null
  destination_port: number | null
}
export interface Filter {
  nodes: string[]
  reason: string
  rule: string
  interface: string
}

/** So many are kept. */
const MOST = 2_000
/** What came is shown this often, however much comes. */
const PACE = 250

export function useDrops(filter: Ref<Filter>, paused: Ref<boolean>): {
  drops: Ref<Drop[]>
  lost: Ref<number>
  state: Ref<'idle' | 'connecting' | 'live' | 'lost'>
  clear: () => void
} {
  const drops = shallowRef<Drop[]>([])
  const lost = ref(0)
  const state = ref<'idle' | 'connecting' | 'live' | 'lost'>('idle')
  let source: EventSource | undefined
  let waiting: Drop[] = []
  let last = 0

  function clear(): void {
    drops.value = []
    waiting = []
    lost.value = 0
  }

  function open(): void {
    source?.close()
    source = undefined
    state.value = 'idle'
    const { nodes, reason, rule, interface: iface } = filter.value
    if (nodes.length === 0) return
    state.value = 'connecting'
    const query = new URLSearchParams({ nodes: nodes.join(',') })
    for (const [name, value] of Object.entries({ reason, rule, interface: iface })) if (value) query.set(name, value)
    source = new EventSource(`/api/v1/drops?${query}`)
    source.onopen = () => (state.value = 'live')
    source.onerror = () => (state.value = 'lost')
    source.addEventListener('drop', (message: MessageEvent<string>) => {
      if (paused.value) return
      last += 1
      waiting.push({ ...(JSON.parse(message.data) as Omit<Drop, 'id'>), id: last })
    })
    source.addEventListener('lost', (message: MessageEvent<string>) => {
      lost.value += (JSON.parse(message.data) as { events: number }).events
    })
  }

  const timer = setInterval(() => {
    if (waiting.length === 0) return
    drops.value = [...waiting.reverse(), ...drops.value].slice(0, MOST)
    waiting = []
  }, PACE)
  watch(
    () => JSON.stringify(filter.value),
    () => {
      clear()
      open()
    },
    { immediate: true },
  )
  onScopeDispose(() => {
    source?.close()
    clearInterval(timer)
  })
  return { drops, lost, state, clear }
}
