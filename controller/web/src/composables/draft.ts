// What is typed of a thing that others may change meanwhile: what it was when it was opened, and whether it moved on.
import { computed, type ComputedRef, ref, type Ref } from 'vue'

export interface Draft<Thing, Form> {
  form: Ref<Form>
  /** As it was when it was opened; undefined: it is new. */
  base: Ref<Thing | undefined>
  dirty: ComputedRef<boolean>
  open: (thing: Thing | undefined) => void
}

export function useDraft<Thing, Form>(read: (thing: Thing | undefined) => Form): Draft<Thing, Form> {
  const form = ref(read(undefined)) as Ref<Form>
  const base = ref<Thing>() as Ref<Thing | undefined>
  const start = ref(JSON.stringify(form.value))
  return {
    form,
    base,
    dirty: computed(() => JSON.stringify(form.value) !== start.value),
    open(thing) {
      base.value = thing
      form.value = read(thing)
      start.value = JSON.stringify(form.value)
    },
  }
}
