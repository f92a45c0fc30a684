// Texts of the interface. English is there at once, other languages are loaded when they are asked for.
import { createI18n } from 'vue-i18n'
import en from './en.json'

export const LOCALES = ['en', 'zh', 'ja', 'ko', 'es'] as const
export type Locale = (typeof LOCALES)[number]
export const LOCALE_NAMES: Record<Locale, string> = {
  en: 'English',
  zh: '中文',
  ja: '日本語',
  ko: '한국어',
  es: 'Español',
}

const LOADERS: Record<Exclude<Locale, 'en'>, () => Promise<{ default: typeof en }>> = {
  zh: () => import('./zh.json') as unknown as Promise<{ default: typeof en }>,
  ja: () => import('./ja.json') as unknown as Promise<{ default: typeof en }>,
  ko: () => import('./ko.json') as unknown as Promise<{ default: typeof en }>,
  es: () => import('./es.json') as unknown as Promise<{ default: typeof en }>,
}

export const i18n = createI18n({
  legacy: false,
  locale: 'en' as string,
  fallbackLocale: 'en',
  messages: { en } as Record<string, typeof en>,
})

export async function setLocale(locale: Locale): Promise<void> {
  if (locale !== 'en' && !i18n.global.availableLocales.includes(locale)) {
    const texts = await LOADERS[locale]()
    i18n.global.setLocaleMessage(locale, texts.default)
  }
  i18n.global.locale.value = locale
  document.documentElement.lang = locale === 'zh' ? 'zh-Hans' : locale
}
