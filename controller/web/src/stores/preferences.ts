// What this browser remembers: theme and language.
import { defineStore } from 'pinia'
import { ref, watch } from 'vue'
import { type Locale, LOCALES, setLocale } from '@/i18n'

export const THEMES = ['system', 'light', 'dark', 'contrast'] as const
export type Theme = (typeof THEMES)[number]

function kept(key: string): string | null {
  try {
    return localStorage.getItem(key)
  } catch {
    return null
  }
}

function keep(key: string, value: string): void {
  try {
    localStorage.setItem(key, value)
  } catch {
    // Storage may be forbidden: it holds until the page is left.
  }
}

function firstLocale(): Locale {
  const wanted = [kept('xdpgate.locale') ?? '', ...navigator.languages]
  const found = wanted.map((tag) => LOCALES.find((locale) => tag.toLowerCase().startsWith(locale)))
  return found.find((locale) => locale !== undefined) ?? 'en'
}

export const usePreferences = defineStore('preferences', () => {
  const theme = ref<Theme>(THEMES.find((name) => name === kept('xdpgate.theme')) ?? 'system')
  const locale = ref<Locale>(firstLocale())
  /** The theme that is shown: never `system`. */
  const shown = ref<Exclude<Theme, 'system'>>('light')

  const dark = matchMedia('(prefers-color-scheme: dark)')
  const contrast = matchMedia('(prefers-contrast: more)')

  function show(): void {
    const system = contrast.matches ? 'contrast' : dark.matches ? 'dark' : 'light'
    shown.value = theme.value === 'system' ? system : theme.value
    document.documentElement.dataset.theme = shown.value
  }
  dark.addEventListener('change', show)
  contrast.addEventListener('change', show)

  watch(
    theme,
    (name) => {
      keep('xdpgate.theme', name)
      show()
    },
    { immediate: true },
  )
  watch(locale, (name) => {
    keep('xdpgate.locale', name)
    void setLocale(name)
  })
  const ready = setLocale(locale.value)

  return { theme, locale, shown, ready }
})
