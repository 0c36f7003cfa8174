package report

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"
)

const (
	chartWidth  = 24 * vg.Centimeter
	chartHeight = 10 * vg.Centimeter
)

// Draw writes a chart, a .png or a .svg: latency over time, and memory over connections.
func (r *Result) Draw(file string) error {
	latency, err := r.latencyPlot()
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	memory, err := r.memoryPlot()
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	var canvas vg.CanvasSizer
	var write io.WriterTo
	switch filepath.Ext(file) {
	case ".png":
		c := vgimg.New(chartWidth, chartHeight)
		canvas, write = c, vgimg.PngCanvas{Canvas: c}
	case ".svg":
		c := vgsvg.New(chartWidth, chartHeight)
		canvas, write = c, c
	default:
		return fmt.Errorf("chart: %s ends in neither .png nor .svg", file)
	}
	both := [][]*plot.Plot{{latency, memory}}
	tiles := draw.Tiles{Rows: 1, Cols: 2, PadX: vg.Centimeter}
	for i, c := range plot.Align(both, tiles, draw.New(canvas))[0] {
		both[0][i].Draw(c)
	}
	f, err := os.Create(file)
	if err != nil {
		return fmt.Errorf("chart: %w", err)
	}
	if _, err := write.WriteTo(f); err != nil {
		_ = f.Close()
		return fmt.Errorf("chart: %w", err)
	}
	return f.Close()
}

func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = title, x, y
	p.Legend.Top, p.Legend.Left = true, true
	p.Y.Min = 0
	p.Add(plotter.NewGrid())
	return p
}

func (r *Result) latencyPlot() (*plot.Plot, error) {
	p := newPlot(fmt.Sprintf("%s, %d connections", r.Mode, r.Connections), "seconds", "latency, ms")
	var p50, p99 plotter.XYs
	for _, s := range r.Seconds {
		if s.P99 > 0 {
			p50 = append(p50, plotter.XY{X: s.At, Y: s.P50})
			p99 = append(p99, plotter.XY{X: s.At, Y: s.P99})
		}
	}
	if len(p50) == 0 {
		return p, nil
	}
	return p, plotutil.AddLines(p, "p50", p50, "p99", p99)
}

func (r *Result) memoryPlot() (*plot.Plot, error) {
	p := newPlot("resident memory", "connections", "MiB")
	p.X.Min = 0
	lines := map[string]plotter.XYs{}
	last := int64(-1)
	for _, s := range r.Seconds {
		if s.Online == last || s.Sent > 0 {
			continue // more of it is not for connections
		}
		last = s.Online
		for group, rss := range s.RSS {
			lines[group] = append(lines[group], plotter.XY{X: float64(s.Online), Y: float64(rss) / mib})
		}
	}
	var args []any
	for _, group := range slices.Sorted(maps.Keys(lines)) {
		args = append(args, group, lines[group])
	}
	if len(args) == 0 {
		return p, nil
	}
	return p, plotutil.AddLinePoints(p, args...)
}
