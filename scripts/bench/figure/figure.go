// Package figure turns measured values into tables: medians, spreads, and ratios to a
// floor and to ours of the same run.
//
// It measures nothing.
package figure

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Table is one figure of several subjects.
type Table struct {
	Title string
	Unit  string
	Note  string // how to read it; may be empty
	Floor string // name of the row that ratios are taken to; "": none
	Ours  string // name of the row of this project; "": none
	Whole string // name of the row that is the sum of others, which have a share of it; "": none
	Rows  []Row
}

// Row is one subject: a value for each round, in their order.
type Row struct {
	Name   string
	Values []float64
}

// Add appends a value to the row of a subject, which is made when it is not there yet.
func (t *Table) Add(name string, v float64) {
	for i := range t.Rows {
		if t.Rows[i].Name == name {
			t.Rows[i].Values = append(t.Rows[i].Values, v)
			return
		}
	}
	t.Rows = append(t.Rows, Row{name, []float64{v}})
}

// Median returns the middle value, the mean of the two in the middle when their number is
// even, NaN when there is none.
func (r Row) Median() float64 {
	n := len(r.Values)
	if n == 0 {
		return math.NaN()
	}
	s := slices.Sorted(slices.Values(r.Values))
	return (s[n/2] + s[(n-1)/2]) / 2
}

// row returns the row of a name, an empty one when there is none.
func (t *Table) row(name string) Row {
	for _, r := range t.Rows {
		if r.Name == name {
			return r
		}
	}
	return Row{}
}

// Markdown writes the table: a line for each subject with the median, the lowest and the
// highest value, and the ratios of medians.
func (t *Table) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "**%s**", t.Title)
	if t.Note != "" {
		fmt.Fprintf(&b, " %s", t.Note)
	}
	head, rule := []string{"", t.Unit, "lowest – highest"}, []string{"---", "---:", "---:"}
	var bases []float64
	for _, base := range []struct{ name, label string }{{t.Floor, "÷ floor"}, {t.Ours, "÷ ours"}, {t.Whole, "share"}} {
		if base.name != "" {
			head, rule = append(head, base.label), append(rule, "---:")
			bases = append(bases, t.row(base.name).Median())
		}
	}
	fmt.Fprintf(&b, "\n\n%s%s", line(head), line(rule))
	for _, r := range t.Rows {
		if len(r.Values) == 0 {
			continue
		}
		m := r.Median()
		cells := []string{r.Name, Number(m), Number(slices.Min(r.Values)) + " – " + Number(slices.Max(r.Values))}
		for _, base := range bases {
			cells = append(cells, ratio(m, base))
		}
		b.WriteString(line(cells))
	}
	b.WriteByte('\n')
	_, err := io.WriteString(w, b.String())
	return err
}

func line(cells []string) string { return "| " + strings.Join(cells, " | ") + " |\n" }

func ratio(v, base float64) string {
	if math.IsNaN(base) || base == 0 {
		return ""
	}
	return strconv.FormatFloat(v/base, 'f', 2, 64)
}

// Number writes a value with three digits at least, and its thousands apart.
func Number(v float64) string {
	switch a := math.Abs(v); {
	case a < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	s := strconv.FormatFloat(v, 'f', 0, 64)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Report is a whole run.
type Report struct {
	Machine Machine
	Command string
	Began   string
	Took    string
	Rounds  int
	Tables  []*Table
}

// Markdown writes the report.
func (r *Report) Markdown(w io.Writer) error {
	if _, err := fmt.Fprintf(w, "%s\n\n`%s`, %s, %d rounds, %s\n\n", r.Machine, r.Command, r.Began, r.Rounds, r.Took); err != nil {
		return err
	}
	for _, t := range r.Tables {
		if err := t.Markdown(w); err != nil {
			return err
		}
	}
	return nil
}

// JSON writes the report with every value.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}
