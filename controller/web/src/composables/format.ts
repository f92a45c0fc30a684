// Numbers and times as people of the language write them.
import { computed, type ComputedRef } from 'vue'
import { useI18n } from 'vue-i18n'

export interface Format {
  count: (value: number | null | undefined) => string
  short: (value: number | null | undefined) => string
  rate: (value: number | null | undefined, unit: string) => string
  bits: (value: number | null | undefined) => string
  bytes: (value: number | null | undefined) => string
  percent: (value: number | null | undefined) => string
  time: (value: string | number | Date | null | undefined) => string
  ago: (value: string | number | Date | null | undefined, now?: number) => string
}

/** Where nothing is known: never a zero. */
export const UNKNOWN = '–'

const STEPS: [Intl.RelativeTimeFormatUnit, number][] = [
  ['year', 31_536_000],
  ['month', 2_592_000],
  ['day', 86_400],
  ['hour', 3_600],
  ['minute', 60],
  ['second', 1],
]

export function useFormat(): ComputedRef<Format> {
  const { locale, t } = useI18n()
  return computed(() => make(locale.value, t))
}

function make(locale: string, t: (key: string, values: Record<string, unknown>) => string): Format {
  const whole = new Intl.NumberFormat(locale, { maximumFractionDigits: 0 })
  const compact = new Intl.NumberFormat(locale, { notation: 'compact', maximumSignificantDigits: 3 })
  const share = new Intl.NumberFormat(locale, { style: 'percent', maximumFractionDigits: 1 })
  const moment = new Intl.DateTimeFormat(locale, { dateStyle: 'medium', timeStyle: 'medium' })
  const relative = new Intl.RelativeTimeFormat(locale, { numeric: 'auto' })
  const known = <T>(value: T | null | undefined, say: (value: T) => string): string =>
    value === null || value === undefined ? UNKNOWN : say(value)
  // Not the compact notation: in some languages it counts in tens of thousands, units do not.
  const scaled = (value: number, units: string[]): string => {
    const step = value < 1000 ? 0 : Math.min(Math.floor(Math.log10(value) / 3), units.length - 1)
    const number = new Intl.NumberFormat(locale, { maximumSignificantDigits: 3 })
    return `${number.format(value / 1000 ** step)} ${units[step] ?? ''}`
  }
  return {
    count: (value) => known(value, (v) => whole.format(v)),
    short: (value) => known(value, (v) => (Math.abs(v) < 10_000 ? whole.format(v) : compact.format(v))),
    rate: (value, unit) =>
      known(value, (v) =>
        t('unit.per_second', { value: v < 10_000 ? whole.format(v) : compact.format(v), unit }),
      ),
    bits: (value) => known(value, (v) => scaled(v, ['bit/s', 'kbit/s', 'Mbit/s', 'Gbit/s', 'Tbit/s'])),
    bytes: (value) => known(value, (v) => scaled(v, ['B', 'kB', 'MB', 'GB', 'TB', 'PB'])),
    percent: (value) => known(value, (v) => share.format(v)),
    time: (value) => known(value, (v) => moment.format(new Date(v))),
    ago: (value, now = Date.now()) =>
      known(value, (v) => {
        const seconds = (new Date(v).getTime() - now) / 1000
        const [unit, length] = STEPS.find(([, length]) => Math.abs(seconds) >= length) ?? ['second', 1]
        return relative.format(Math.trunc(seconds / length), unit)
      }),
  }
}
