// A list that the server has in pages.
import { useInfiniteQuery, type QueryKey } from '@tanstack/vue-query'
import { computed, type ComputedRef, type Ref } from 'vue'

interface Page<T> {
  items: T[]
  next?: string | null
  total?: number | null
}
export interface List<T> {
  rows: ComputedRef<T[]>
  total: ComputedRef<number | undefined>
  error: Ref<unknown>
  /** Nothing has come yet. */
  loading: ComputedRef<boolean>
  more: Ref<boolean>
  next: () => void
  again: () => void
}

export function useList<T>(options: {
  key: ComputedRef<QueryKey>
  page: (cursor: string | undefined) => Promise<Page<T>>
  every?: number
  enabled?: ComputedRef<boolean>
}): List<T> {
  const query = useInfiniteQuery({
    queryKey: options.key,
    queryFn: ({ pageParam }) => options.page(pageParam),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
    refetchInterval: options.every,
    enabled: options.enabled,
    // What was there stays until the answer to another question comes.
    placeholderData: (before) => before,
  })
  return {
    rows: computed(() => query.data.value?.pages.flatMap((page) => page.items) ?? []),
    total: computed(() => query.data.value?.pages[0]?.total ?? undefined),
    error: query.error,
    loading: computed(() => query.isPending.value && query.isFetching.value),
    more: query.hasNextPage,
    next: () => {
      if (!query.isFetchingNextPage.value) void query.fetchNextPage()
    },
    again: () => void query.refetch(),
  }
}
