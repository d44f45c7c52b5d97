import type { JSX } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { get } from "./api";
import { number, show } from "./format";
import { t } from "./i18n";
import { setParams, useRoute } from "./router";
import { part, partsOf, qualifiers } from "./search";

interface Suggestion {
  text: string;       // Of the whole search, once it is chosen.
  shown: string;
  count: number | null;
}

const asked = ["status", "queue", "func", "worker", "tag", "group"];

async function suggest(text: string): Promise<Suggestion[]> {
  const parts = partsOf(text);
  const last = /\s$/.test(text) ? undefined : parts[parts.length - 1];
  const head = last ? text.slice(0, last.at) : text;
  const word = last?.text ?? "";
  const found = /^(\w+):(.*)$/s.exec(word);
  if (!found) {
    return qualifiers.filter((name) => name.startsWith(word.toLowerCase()))
      .map((name) => ({ text: `${head}${name}${name === "took" || name === "age" ? ">" : ":"}`, shown: name, count: null }));
  }
  const [, field = "", prefix = ""] = found;
  if (!asked.includes(field)) return [];
  const query = new URLSearchParams({ field, prefix: prefix.replace(/"/g, "") }).toString();
  const { values } = await get<{ values: { value: unknown; count: number }[] }>(`/api/v1/suggest?${query}`);
  return values.filter((one): one is { value: string; count: number } => typeof one.value === "string" && one.value !== "")
    .map((one) => ({ text: `${head}${part(field, one.value)} `, shown: show(one.value, 80), count: one.count }));
}

const change = (text: string): void => setParams({ q: text, cursor: "" }, true);

/** The text is in the address; suggestions for its last part come while it is typed. */
export function SearchBox(): JSX.Element {
  const value = useRoute().params.get("q") ?? "";
  const [text, setText] = useState(value);
  const [offers, setOffers] = useState<Suggestion[]>([]);
  const [at, setAt] = useState(-1);
  const [open, setOpen] = useState(false);
  const sent = useRef(value);
  const timer = useRef<ReturnType<typeof setTimeout>>();
  useEffect(() => {
    if (value === sent.current) return;   // Somebody else has changed the address.
    sent.current = value;
    setText(value);
  }, [value]);
  useEffect(() => {
    if (!open) return undefined;
    let ended = false;
    const later = setTimeout(() => suggest(text).then((found) => {
      if (ended) return;
      setOffers(found.slice(0, 12));
      setAt(-1);
    }, () => setOffers([])), 120);
    return () => {
      ended = true;
      clearTimeout(later);
    };
  }, [text, open]);

  const put = (now: string, soon = false) => {
    setText(now);
    clearTimeout(timer.current);
    const send = () => {
      sent.current = now.trim();
      change(sent.current);
    };
    if (soon) send();
    else timer.current = setTimeout(send, 350);
  };
  const press = (event: KeyboardEvent) => {
    const step = event.key === "ArrowDown" ? 1 : event.key === "ArrowUp" ? -1 : 0;
    const offer = offers[at];
    if (step !== 0 && offers.length > 0) {
      event.preventDefault();
      setOpen(true);
      setAt((at + step + offers.length + (at < 0 && step < 0 ? 1 : 0)) % offers.length);
    } else if ((event.key === "Enter" || event.key === "Tab") && open && offer) {
      event.preventDefault();
      put(offer.text, true);
    } else if (event.key === "Enter") {
      put(text, true);
      setOpen(false);
    } else if (event.key === "Escape" && open) {
      event.preventDefault();
      setOpen(false);
    }
  };
  const shown = open && offers.length > 0;
  return <label class="filter search"><span>{t("search")}</span>
    <span class="box">
      <input type="search" role="combobox" aria-expanded={shown} aria-controls="offers" aria-autocomplete="list" aria-activedescendant={shown && at >= 0 ? `offer${at}` : undefined}
        autocomplete="off" spellcheck={false} maxLength={500} data-filter placeholder={t("searchHint")} value={text} onKeyDown={press}
        onFocus={() => setOpen(true)} onBlur={() => setOpen(false)} onInput={(event) => { setOpen(true); put(event.currentTarget.value); }} />
      <ul id="offers" role="listbox" aria-label={t("suggestions")} hidden={!shown}>
        {offers.map((offer, i) => <li key={offer.text} id={`offer${i}`} role="option" aria-selected={i === at}
          onMouseDown={(event) => { event.preventDefault(); put(offer.text, true); }}>{offer.shown}{offer.count !== null && <small> {number(offer.count)}</small>}</li>)}
      </ul>
    </span></label>;
}
