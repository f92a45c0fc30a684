// The time, once a second, while somebody looks.
import { onScopeDispose, ref, type Ref } from 'vue'

export function useNow(every = 1_000): Ref<number> {
  const now = ref(Date.now())
  const timer = setInterval(() => {
    if (!document.hidden) now.value = Date.now()
  }, every)
  onScopeDispose(() => {
    clearInterval(timer)
  })
  return now
}
