// One change at a time, and why it was refused.
import { ref, type Ref } from 'vue'

export interface Attempt {
  busy: Ref<boolean>
  error: Ref<unknown>
  /** Whether it was done. */
  run: (work: () => Promise<void>) => Promise<boolean>
}

export function useAttempt(): Attempt {
  const busy = ref(false)
  const error = ref<unknown>()
  return {
    busy,
    error,
    async run(work) {
      if (busy.value) return false
      busy.value = true
      error.value = undefined
      try {
        await work()
        return true
      } catch (refused) {
        error.value = refused
        return false
      } finally {
        busy.value = false
      }
    },
  }
}
