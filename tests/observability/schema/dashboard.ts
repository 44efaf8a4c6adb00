// What a dashboard of ours is: Grafana's types, and of each kind of panel its own options.

import type {
  AnnotationQuery,
  Dashboard as AnyDashboard,
  FieldConfig as AnyFieldConfig,
  FieldConfigSource,
  Panel as AnyPanel,
  RowPanel,
} from '@grafana/schema/dist/esm/raw/dashboard/x/Dashboard_types.gen';
import type { Options as BarGauge } from '@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen';
import type {
  FieldConfig as HeatmapField,
  Options as Heatmap,
} from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type { Options as Stat } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type {
  FieldConfig as TimelineField,
  Options as Timeline,
} from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type {
  FieldConfig as TableField,
  Options as Table,
} from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type {
  FieldConfig as GraphField,
  Options as Graph,
} from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// An enum stands in JSON as its value.
type Json<T> = T extends string ? `${T}` : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

// The types leave queries open: this is what Prometheus' data source reads, and all that we write.
interface Target {
  datasource: { type: 'prometheus'; uid: string };
  editorMode: 'code' | 'builder';
  exemplar: boolean;
  expr: string;
  format: 'time_series' | 'table' | 'heatmap';
  instant: boolean;
  legendFormat: string;
  range: boolean;
  refId: string;
}

interface DataLink {
  title: string;
  url: string;
  targetBlank: boolean;
}

type None = Record<string, never>;

interface PanelOf<Type extends string, Options, Field> extends Omit<AnyPanel, 'type' | 'options' | 'targets' | 'fieldConfig'> {
  type: Type;
  options: Options;
  targets: Target[];
  fieldConfig: Omit<FieldConfigSource, 'defaults'> & {
    defaults: Omit<AnyFieldConfig, 'custom' | 'links'> & { custom: Field; links: DataLink[] };
  };
}

type Panel =
  | PanelOf<'stat', Stat, None>
  | PanelOf<'timeseries', Graph, GraphField>
  | PanelOf<'bargauge', BarGauge, None>
  | PanelOf<'state-timeline', Timeline, TimelineField>
  | PanelOf<'heatmap', Heatmap, HeatmapField>
  | PanelOf<'table', Table, TableField>;

interface Annotation extends AnnotationQuery {
  expr: string;
  step: string;
  tagKeys: string;
  titleFormat: string;
}

interface Row extends Omit<RowPanel, 'panels'> {
  panels: Panel[];
}

interface Whole extends Omit<AnyDashboard, 'panels' | 'annotations' | 'id' | 'version'> {
  uid: string;
  title: string;
  editable: false;
  graphTooltip: 1;
  annotations: { list: Annotation[] };
  panels: (Panel | Row)[];
}

export type Dashboard = Json<Whole>;
