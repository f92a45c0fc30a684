// What happens in the fleet, as the controller tells it: answers that it makes old are asked for again.
import { useQueryClient } from '@tanstack/vue-query'
import { onScopeDispose, ref, type Ref } from 'vue'

export type Link = 'live' | 'connecting' | 'lost'

/** Which answers an event makes old. */
const TOUCHES: Record<string, string[]> = {
  change: ['policies', 'rules', 'sets', 'groups', 'rollouts', 'feeds', 'mode', 'nodes', 'audit', 'versions'],
  online: ['nodes', 'stats'],
  offline: ['nodes', 'stats'],
  applied: ['nodes', 'stats', 'progress'],
  refused: ['nodes', 'stats', 'progress'],
  silent: ['nodes', 'stats', 'progress'],
  drift: ['nodes', 'stats'],
  progress: ['progress', 'rollouts'],
  import: ['sets'],
  feed: ['feeds', 'sets'],
  lost: [
    'policies',
    'rules',
    'sets',
    'groups',
    'rollouts',
    'feeds',
    'mode',
    'nodes',
    'stats',
    'audit',
    'versions',
    'progress',
  ],
}
/** Answers are asked for again this often at most, however much happens. */
const PACE = 750

export interface LiveEvent {
  event: string
  [field: string]: unknown
}
type Listener = (event: LiveEvent) => void
const listeners = new Set<Listener>()

/** Follows single events, as long as the scope lasts. */
export function onLiveEvent(listener: Listener): void {
  listeners.add(listener)
  onScopeDispose(() => listeners.delete(listener))
}

/** Follows the controller, as long as the scope lasts. */
export function useLiveEvents(): { link: Ref<Link> } {
  const client = useQueryClient()
  const link = ref<Link>('connecting')
  const old = new Set<string>()
  let timer: ReturnType<typeof setTimeout> | undefined
  let source: EventSource | undefined
  let again: ReturnType<typeof setTimeout> | undefined

  function touch(kind: string): void {
    for (const name of TOUCHES[kind] ?? []) old.add(name)
    if (old.size === 0) return
    timer ??= setTimeout(() => {
      timer = undefined
      for (const name of old) void client.invalidateQueries({ queryKey: [name] })
      old.clear()
    }, PACE)
  }

  function open(): void {
    source = new EventSource('/api/v1/events')
    let was = false
    source.onopen = () => {
      // What came meanwhile may be lost.
      if (was || link.value === 'lost') touch('lost')
      was = true
      link.value = 'live'
    }
    source.onerror = () => {
      link.value = 'lost'
      // A browser does not try again after a refusal.
      if (source?.readyState === EventSource.CLOSED) again = setTimeout(open, 5_000)
    }
    for (const kind of Object.keys(TOUCHES)) {
      source.addEventListener(kind, (message: MessageEvent<string>) => {
        touch(kind)
        const event = { event: kind, ...(JSON.parse(message.data) as object) }
        for (const listener of listeners) listener(event)
      })
    }
  }

  open()
  onScopeDispose(() => {
    source?.close()
    clearTimeout(timer)
    clearTimeout(again)
  })
  return { link }
}
