// A list that the server has in pages. Of a long one not all pages are asked for again at each change: it is told instead.
import { keepPreviousData, useInfiniteQuery, useQueryClient } from '@tanstack/vue-query'
import { computed, type ComputedRef, onScopeDispose, ref, type Ref, watch } from 'vue'
import { onLiveEvent } from '@/api/live'
import type { Page } from '@/api/policy'

/** So many pages are asked for again without being asked. */
const FEW = 4
/** Not more often than this. */
const PACE = 800

export interface Pages<Row> {
  rows: ComputedRef<Row[]>
  total: ComputedRef<number | undefined>
  error: Ref<unknown>
  loading: ComputedRef<boolean>
  more: Ref<boolean>
  /** It changed since it was asked for. */
  old: Ref<boolean>
  fetchMore: () => void
  refresh: () => void
  /** Changes rows as they are shown, until they are asked for again. */
  edit: (change: (row: Row) => Row) => void
}

export function usePages<Row>(
  key: ComputedRef<unknown[]>,
  ask: (cursor: string | undefined) => Promise<Page<Row>>,
  events: string[] = ['change', 'lost'],
): Pages<Row> {
  const client = useQueryClient()
  const fullKey = computed(() => ['pages', ...key.value])
  const query = useInfiniteQuery({
    queryKey: fullKey,
    queryFn: ({ pageParam }) => ask(pageParam),
    initialPageParam: undefined as string | undefined,
    getNextPageParam: (page) => page.next ?? undefined,
    refetchOnWindowFocus: false,
    placeholderData: keepPreviousData,
    // A hundred thousand rows are neither compared nor watched one by one.
    structuralSharing: false,
    shallow: true,
  })
  const old = ref(false)
  let timer: ReturnType<typeof setTimeout> | undefined

  function refresh(): void {
    old.value = false
    void client.resetQueries({ queryKey: fullKey.value, exact: true })
  }
  function changed(): void {
    if ((query.data.value?.pages.length ?? 0) > FEW) {
      old.value = true
      return
    }
    timer ??= setTimeout(() => {
      timer = undefined
      void query.refetch()
    }, PACE)
  }
  onLiveEvent((event) => {
    if (events.includes(event.event)) changed()
  })
  onScopeDispose(() => {
    clearTimeout(timer)
  })
  watch(fullKey, () => {
    old.value = false
  })

  return {
    rows: computed(() => query.data.value?.pages.flatMap((page) => page.items) ?? []),
    total: computed(() => query.data.value?.pages[0]?.total ?? undefined),
    error: query.error,
    loading: computed(() => query.isFetching.value),
    more: query.hasNextPage,
    old,
    fetchMore: () => {
      if (!query.isFetchingNextPage.value) void query.fetchNextPage()
    },
    refresh,
    edit(change) {
      client.setQueryData<{ pages: Page<Row>[]; pageParams: unknown[] }>(fullKey.value, (data) =>
        data === undefined
          ? data
          : { ...data, pages: data.pages.map((page) => ({ ...page, items: page.items.map(change) })) },
      )
    },
  }
}
