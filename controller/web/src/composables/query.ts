// State in the address of the page, so that it survives a reload and can be sent to somebody.
import { computed, type WritableComputedRef } from 'vue'
import { useRoute, useRouter } from 'vue-router'

/** A parameter of the address; the default is not written. */
export function useParam(name: string, preset = ''): WritableComputedRef<string> {
  const route = useRoute()
  const router = useRouter()
  return computed({
    get() {
      const value = route.query[name]
      return typeof value === 'string' ? value : preset
    },
    set(value) {
      setParams(router, { [name]: value === preset ? undefined : value })
    },
  })
}

let pending: Record<string, string | undefined> | undefined

/** Several at once: what is set in one turn is one step, and makes no entry in the browser's history. */
export function setParams(
  router: ReturnType<typeof useRouter>,
  values: Record<string, string | undefined>,
): void {
  const first = pending === undefined
  pending = { ...pending, ...values }
  if (!first) return
  queueMicrotask(() => {
    const query = { ...router.currentRoute.value.query, ...pending }
    pending = undefined
    void router.replace({ query, hash: router.currentRoute.value.hash })
  })
}
