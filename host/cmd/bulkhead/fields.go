package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/bulkhead-wasm/bulkhead/abi"
	"github.com/bulkhead-wasm/bulkhead/host/internal/describe"
	"github.com/bulkhead-wasm/bulkhead/host/internal/safetext"
)

// How wide a table of fields is, in characters, and its columns at most. What is longer goes on in the next line.
// The last column takes what the others leave.
const (
	tableWidth  = 100
	columnSpace = "  "
	maxRowLines = 40 // of one cell
)

var columnWidths = [...]int{16, 18, 14, 8, 16, tableWidth}

// printFields prints what a module's commands, queries and events consist of.
func printFields(w io.Writer, m *abi.Manifest) {
	if len(m.Commands) > 0 {
		t := fieldTable(w, "COMMAND")
		for _, c := range m.Commands {
			t.add(c.Name, c.Input, true)
			t.add("  reply", c.Reply, false)
		}
		t.end()
	}
	if len(m.Queries) > 0 {
		t := fieldTable(w, "QUERY")
		for _, q := range m.Queries {
			t.add(q.Name, q.Input, true)
			t.add("  reply", q.Reply, false)
		}
		t.end()
	}
	if len(m.Events) > 0 {
		t := fieldTable(w, "EVENT")
		for i := range m.Events {
			t.add(eventName(&m.Events[i]), m.Events[i].Schema, false)
		}
		t.end()
	}
}

// table is a table of fields. If no row has something in a column, the column is left out.
type table struct {
	w    io.Writer
	rows [][]string
}

func fieldTable(w io.Writer, kind string) *table {
	return &table{w, [][]string{{kind, "FIELD", "TYPE", "REQUIRED", "LIMITS", "ABOUT"}}}
}

// add adds a type: a row for each of its fields, or one that says that there are none.
func (t *table) add(name, schema string, required bool) {
	fields, about, more := describe.Fields(schema)
	switch {
	case len(fields) == 0 && more:
		t.row(name, "…", "see --json", "", "", about)
		return
	case schema == "" || schema == "true":
		t.row(name, "-", "any", "", "", about)
		return
	case len(fields) == 0 || about != "" && fields[0].Path != "":
		none := ""
		if len(fields) == 0 {
			none = "-"
		}
		t.row(name, none, "", "", "", about)
		name = ""
	}
	for _, f := range fields {
		need := ""
		if required && f.Required {
			need = "yes"
		}
		path := f.Path
		if path == "" {
			path = "-"
		}
		t.row(name, path, f.Type, need, f.Limits, f.About)
		name = ""
	}
	if more {
		t.row("", "…", "see --json", "", "", "")
	}
}

// row adds a row.
func (t *table) row(cells ...string) {
	for i := range cells {
		cells[i] = safetext.Text(cells[i])
	}
	t.rows = append(t.rows, cells)
}

// end prints the table. Cells that are too wide go on in further lines.
func (t *table) end() {
	widths := make([]int, len(columnWidths))
	for i := range widths {
		filled := func(row []string) bool { return row[i] != "" }
		if !slices.ContainsFunc(t.rows[1:], filled) {
			continue // the column is left out
		}
		for _, row := range t.rows {
			widths[i] = max(widths[i], min(utf8.RuneCountInString(row[i]), columnWidths[i]))
		}
	}
	about, used := len(widths)-1, 0
	for _, width := range widths[:about] {
		if width > 0 {
			used += width + len(columnSpace)
		}
	}
	if widths[about] > 0 {
		widths[about] = tableWidth - used
	}
	fmt.Fprintln(t.w)
	for _, row := range t.rows {
		t.print(row, widths)
	}
}

// print prints one row, in as many lines as its cells need.
func (t *table) print(row []string, widths []int) {
	var cells [][]string
	height := 1
	for i, width := range widths {
		cells = append(cells, nil)
		if width > 0 {
			cells[i] = wrapped(row[i], width)
		}
		height = max(height, len(cells[i]))
	}
	for n := range height {
		line := ""
		for i, width := range widths {
			if width == 0 {
				continue
			}
			text := ""
			if n < len(cells[i]) {
				text = cells[i][n]
			}
			line += text + strings.Repeat(" ", width-utf8.RuneCountInString(text)) + columnSpace
		}
		fmt.Fprintln(t.w, strings.TrimRight(line, " "))
	}
}

// wrapped breaks a text into lines of at most so many characters, between words where that is possible. A text
// that takes too many lines is cut.
func wrapped(text string, width int) (lines []string) {
	indent := text[:len(text)-len(strings.TrimLeft(text, " "))]
	line := indent
	end := func() {
		if line != "" {
			lines = append(lines, line)
		}
		line = ""
	}
	for _, word := range strings.Fields(text) {
		switch space := utf8.RuneCountInString(line) + 1; {
		case line == indent:
		case space+utf8.RuneCountInString(word) > width:
			end()
		default:
			line += " "
		}
		for utf8.RuneCountInString(line)+utf8.RuneCountInString(word) > width && len(lines) < maxRowLines {
			part := []rune(word)
			cut := cutAt(part, width-utf8.RuneCountInString(line))
			line += string(part[:cut])
			word = string(part[cut:])
			end()
		}
		if len(lines) >= maxRowLines {
			return append(lines[:maxRowLines-1], "…")
		}
		line += word
	}
	end()
	return lines
}

// cutAt is where a word that is too long is cut: after the last of some separators, or at the width.
func cutAt(word []rune, width int) int {
	width = max(width, 1)
	for i := width; i > width/2; i-- {
		if strings.ContainsRune(".|,/_-", word[i-1]) {
			return i
		}
	}
	return width
}
