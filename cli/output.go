package cli

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/yaml"

	"github.com/fairlead-net/fairlead/kube"
	"github.com/fairlead-net/fairlead/observe/trace"
)

// format is how a command prints what it has to say. It is the value of -o,
// which takes none but those that its command has.
type format struct {
	name    string
	allowed []string
}

// The names of formats. JSON and YAML have the same fields, which only grow.
const (
	inText = "text" // for people
	inWide = "wide" // more columns
	inJSON = "json"
	inYAML = "yaml"
)

// formatFlag gives a command the flag -o. The first of the formats is the
// default.
func formatFlag(command *cobra.Command, to *format, allowed ...string) {
	*to = format{name: allowed[0], allowed: allowed}
	command.Flags().VarP(to, "output", "o", strings.Join(allowed[:len(allowed)-1], ", ")+" or "+allowed[len(allowed)-1])
	complete(command, "output", allowed...)
}

// complete makes the shell complete the values of a flag.
func complete(command *cobra.Command, flag string, values ...string) {
	if err := command.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)); err != nil {
		panic(err) // the flag is defined by the caller
	}
}

// String implements pflag.Value.
func (f *format) String() string { return f.name }

// Type implements pflag.Value: what the help calls it.
func (f *format) Type() string { return "format" }

// Set implements pflag.Value.
func (f *format) Set(name string) error {
	if !slices.Contains(f.allowed, name) {
		return fmt.Errorf("not a format; %s are", strings.Join(f.allowed, ", "))
	}
	f.name = name
	return nil
}

// structured tells whether the format is for programs.
func (f *format) structured() bool { return f.name == inJSON || f.name == inYAML }

// print writes a value in a structured format.
func (f *format) print(to io.Writer, value any) error {
	if f.name != inYAML {
		return printJSON(to, value)
	}
	text, err := yaml.Marshal(value)
	if err == nil {
		_, err = to.Write(text)
	}
	return err
}

func printJSON(to io.Writer, value any) error {
	encoder := json.NewEncoder(to)
	encoder.SetIndent("", "  ")
	return encoder.Encode(value)
}

// palette colours what a person reads on a terminal. The zero value does not.
type palette struct{ on bool }

// paletteOf colours on terminals, unless the user does not want it
// (https://no-color.org) or the terminal cannot.
func paletteOf(to io.Writer) palette {
	return palette{isTerminal(to) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

// isTerminal tells whether a person looks on.
func isTerminal(to io.Writer) bool {
	file, ok := to.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(file.Fd()), unix.TCGETS)
	return err == nil
}

// progressTo is where to say what is done meanwhile: nowhere, if nobody looks on.
func progressTo(to io.Writer) io.Writer {
	if isTerminal(to) {
		return to
	}
	return io.Discard
}

// explain says what failed and what to do next: what a trace.Unasked says of that, or
// to get a right, or to see to the cluster.
func explain(command *cobra.Command, err error) {
	next := nextOf(err, seeCluster)
	if u := (*trace.Unasked)(nil); errors.As(err, &u) {
		next = u.Next
	}
	fmt.Fprintf(command.ErrOrStderr(), "%s: %v\n  next: %s\n", command.CommandPath(), err, next)
}

// seeCluster is what to do when the cluster does not answer.
const seeCluster = "see whether the cluster can be reached: kubectl get nodes"

// nextOf is what to do about an error: to get the right that is lacking, or otherwise what
// is given.
func nextOf(err error, otherwise string) string {
	if !kube.IsForbidden(err) {
		return otherwise
	}
	_, right := kube.Forbidden(err)
	return "have yourself allowed to " + cmp.Or(right, "do this")
}

func (p palette) good(text string) string  { return p.paint("32", text) } // green
func (p palette) bad(text string) string   { return p.paint("31", text) } // red
func (p palette) doubt(text string) string { return p.paint("33", text) } // yellow
func (p palette) bold(text string) string  { return p.paint("1", text) }

func (p palette) paint(code, text string) string {
	if !p.on || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// table aligns columns. Its first row is the heading.
type table struct {
	rows [][]string
	// paint colours a cell that is not of the heading; nil leaves it alone.
	paint func(column int, cell string) string
}

func (t *table) add(cells ...string) { t.rows = append(t.rows, cells) }

// write writes the rows with three spaces between columns.
func (t *table) write(to io.Writer) error {
	var widths []int
	for _, row := range t.rows {
		for column, cell := range row {
			if column == len(widths) {
				widths = append(widths, 0)
			}
			widths[column] = max(widths[column], utf8.RuneCountInString(cell))
		}
	}
	for at, row := range t.rows {
		line, gap := "", ""
		for column, cell := range row {
			line, gap = line+gap, strings.Repeat(" ", widths[column]-utf8.RuneCountInString(cell)+3)
			if at > 0 && t.paint != nil {
				cell = t.paint(column, cell)
			}
			line += cell
		}
		if _, err := fmt.Fprintln(to, strings.TrimRight(line, " ")); err != nil {
			return err
		}
	}
	return nil
}
