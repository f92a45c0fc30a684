// Whether the window is so many pixels wide.
import { onScopeDispose, ref, type Ref } from 'vue'

export function useRoom(width: number): Ref<boolean> {
  const query = matchMedia(`(min-width: ${width}px)`)
  const roomy = ref(query.matches)
  const tell = (): void => {
    roomy.value = query.matches
  }
  query.addEventListener('change', tell)
  onScopeDispose(() => {
    query.removeEventListener('change', tell)
  })
  return roomy
}
