package main

import (
	"bytes"
	"encoding/json"
	"strings"
)

const (
	columns = 24 // of Grafana's grid
	tall    = 8  // rows of the grid that a graph takes
	low     = 4  // that a number takes
)

// source is the data source that the reader chooses at the top.
var source = map[string]any{"type": "prometheus", "uid": "${datasource}"}

// dashboard returns the JSON that Grafana imports: schema version 39, Grafana 11.
func dashboard() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", " ")
	err := enc.Encode(map[string]any{
		"title": "wirepost", "uid": "wirepost", "tags": []string{"wirepost"}, "schemaVersion": 39,
		"time": map[string]any{"from": "now-3h", "to": "now"}, "refresh": "30s", "timezone": "browser",
		"graphTooltip": 1, // the cross-hair is shared
		"templating": map[string]any{"list": []any{
			map[string]any{"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
			map[string]any{"name": "namespace", "label": "Namespace", "type": "query", "datasource": source, "refresh": 2,
				"query": "label_values(wirepost_build_info, namespace)", "includeAll": true, "multi": true,
				"allValue": ".*", // also where there are no namespaces
				"current":  map[string]any{"text": "All", "value": "$__all"}},
		}},
		"panels": layout(),
	})
	return b.Bytes(), err
}

// layout places the rows one below the other, and their panels three or six beside each other.
func layout() (all []any) {
	id, y := 0, 0
	place := func(p map[string]any, x, w, h int) {
		id++
		p["id"], p["gridPos"] = id, map[string]int{"x": x, "y": y, "w": w, "h": h}
		all = append(all, p)
	}
	for _, r := range rows {
		place(map[string]any{"type": "row", "title": r.title, "collapsed": false, "panels": []any{}}, 0, columns, 1)
		y++
		wide, high := columns/3, tall
		if r.panels[0].stat {
			wide, high = columns/6, low
		}
		x := 0
		for _, p := range r.panels {
			if x == columns {
				x, y = 0, y+high
			}
			place(p.json(), x, wide, high)
			x += wide
		}
		y += high
	}
	return all
}

func (p panel) json() map[string]any {
	var targets []any
	for i, q := range p.queries {
		targets = append(targets, map[string]any{"refId": string(rune('A' + i)), "expr": q.promQL(), "legendFormat": q.legend, "datasource": source})
	}
	out := map[string]any{"title": p.title, "type": "timeseries", "datasource": source, "targets": targets,
		"fieldConfig": map[string]any{"defaults": map[string]any{"unit": p.unit, "min": 0}, "overrides": []any{}}}
	if p.stat {
		out["type"] = "stat"
		out["options"] = map[string]any{"reduceOptions": map[string]any{"calcs": []string{"lastNotNull"}}}
		out["fieldConfig"] = map[string]any{"defaults": map[string]any{"unit": p.unit}, "overrides": []any{}}
	}
	return out
}

// promQL is the query as Grafana sends it, once it has put its variables in.
func (q query) promQL() string {
	return strings.NewReplacer("$in", `namespace=~"$namespace"`, "$rate", "$__rate_interval").Replace(q.expr)
}
