// Jobs and what they wait for, in columns: who goes first stands on the left.

import type { JSX } from "preact";
import { get, path } from "./api";
import { statusText } from "./components";
import { useHas } from "./features";
import { show } from "./format";
import { t } from "./i18n";
import { useData } from "./live";
import { href } from "./router";

interface Graph {
  nodes: { id: string; status: unknown; description: unknown; missing: boolean }[];
  edges: { from: string; to: string }[];
  complete: boolean;
}

const [width, height, gapX, gapY] = [190, 44, 46, 12];

/** How many go before each, at most; of what goes in circles some number. */
function columnsOf(graph: Graph): Map<string, number> {
  const columns = new Map(graph.nodes.map((node) => [node.id, 0]));
  for (let turn = 0; turn < graph.nodes.length; ++turn) {
    let changed = false;
    for (const { from, to } of graph.edges) {
      const [before, after] = [columns.get(from), columns.get(to)];
      if (before === undefined || after === undefined || after > before || before + 1 >= graph.nodes.length) continue;
      columns.set(to, before + 1);
      changed = true;
    }
    if (!changed) break;
  }
  return columns;
}

export function Dependencies({ id }: { id: string }): JSX.Element | null {
  return useHas("/api/v1/jobs/{job_id}/dependencies") ? <Drawn id={id} /> : null;
}

function Drawn({ id }: { id: string }): JSX.Element | null {
  const { data } = useData(`graph ${id}`, () => get<{ graph: Graph }>(path`/api/v1/jobs/${id}/dependencies`));
  if (!data || data.graph.edges.length === 0) return null;
  const { graph } = data;
  const columns = columnsOf(graph);
  const filled: number[] = [];
  const places = new Map(graph.nodes.map((node) => {
    const column = columns.get(node.id) ?? 0;
    const row = filled[column] ?? 0;
    filled[column] = row + 1;
    return [node.id, { x: column * (width + gapX) + 2, y: row * (height + gapY) + 2 }];
  }));
  const [wide, high] = [filled.length * (width + gapX) - gapX + 4, Math.max(...filled.map((rows) => rows ?? 0)) * (height + gapY) - gapY + 4];
  return <><h2>{t("dependencies")}</h2>
    <div class="scroll graph" tabIndex={0} role="region" aria-label={t("dependencies")}>
      <svg width={wide} height={high} viewBox={`0 0 ${wide} ${high}`} role="group" aria-label={t("dependencies")}>
        {graph.edges.map(({ from, to }) => {
          const [a, b] = [places.get(from), places.get(to)];
          if (!a || !b) return null;
          const [x1, y1, x2, y2] = [a.x + width, a.y + height / 2, b.x, b.y + height / 2];
          return <path key={`${from} ${to}`} d={`M${x1} ${y1} C${x1 + gapX / 2} ${y1} ${x2 - gapX / 2} ${y2} ${x2} ${y2}`} />;
        })}
        {graph.nodes.map((node) => {
          const { x, y } = places.get(node.id) ?? { x: 0, y: 0 };
          const word = node.missing ? t("gone") : statusText(node.status);
          return <a key={node.id} href={href(["jobs", node.id])} aria-label={`${show(node.id, 40)}, ${word}`} aria-current={node.id === id ? "true" : undefined}>
            <rect x={x} y={y} width={width} height={height} rx={7} />
            <text x={x + 10} y={y + 18}>{show(node.description ?? node.id, 25)}</text>
            <text x={x + 10} y={y + 35} class={`state ${typeof node.status === "string" && /^[a-z_]+$/.test(node.status) ? node.status : "unreadable"}`}>● {word}</text>
          </a>;
        })}
      </svg>
    </div>
    {!graph.complete && <p class="note">{t("moreDependencies")}</p>}
  </>;
}
