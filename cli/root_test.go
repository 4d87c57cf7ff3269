package cli

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestMain makes the test's program the command line when it is told to.
func TestMain(m *testing.M) {
	if os.Getenv("FAIRLEAD_TEST_MAIN") != "" {
		os.Exit(Main(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// program runs the command line as a process, under a name, and returns what it
// wrote and its exit code.
func program(t *testing.T, name string, args ...string) (text string, code int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), name)
	if err := os.Symlink(self, link); err != nil {
		t.Fatal(err)
	}
	command := exec.Command(link, args...)
	command.Env = append(os.Environ(), "FAIRLEAD_TEST_MAIN=1", "KUBECONFIG=/nonexistent", "HOME=/nonexistent")
	out, err := command.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), command.ProcessState.ExitCode()
}

func walk(command *cobra.Command, visit func(*cobra.Command)) {
	visit(command)
	for _, child := range command.Commands() {
		walk(child, visit)
	}
}

// TestManners: all commands have the same manners.
func TestManners(t *testing.T) {
	walk(root(), func(c *cobra.Command) {
		path := c.CommandPath()
		if c.Name() == "help" || strings.HasPrefix(path, "fairlead completion") { // cobra's own
			return
		}
		switch first, _, _ := strings.Cut(c.Short, " "); {
		case c.Short == "" || len(c.Short) > 90 || strings.HasSuffix(c.Short, "."):
			t.Errorf("%s: Short is one phrase of at most 90 bytes without a full stop: %q", path, c.Short)
		case strings.ToUpper(first[:1]) != first[:1]:
			t.Errorf("%s: Short begins with a capital letter: %q", path, c.Short)
		}
		if c.Args == nil {
			t.Errorf("%s: Args is not set: what it does not understand would be ignored", path)
		}
		if c.HasParent() && !c.Parent().HasParent() && !c.Hidden && c.GroupID == "" {
			t.Errorf("%s is under no heading of the help: groups, in root.go", path)
		}
		if c.Runnable() && !c.HasSubCommands() && !c.DisableFlagParsing && strings.Contains(c.Use, "[flags]") {
			t.Errorf("%s: cobra adds [flags] by itself", path)
		}
		if output := c.Flags().Lookup("output"); output != nil {
			verifyOutput(t, path, c, output)
		} else if _, known := unformatted[path]; !c.HasSubCommands() && !c.Hidden && !known && !strings.HasPrefix(path, "fairlead lab ") {
			t.Errorf("%s has no -o, and no reason in unformatted", path)
		}
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" || strings.HasSuffix(f.Usage, ".") || strings.ToLower(f.Name) != f.Name {
				t.Errorf("%s --%s: a flag says what it is, without a full stop, and has a small name: %q", path, f.Name, f.Usage)
			}
		})
		if strings.Contains(c.Long, "Exit codes") && !strings.Contains(c.Long, "0 ") {
			t.Errorf("%s: exit codes are not said", path)
		}
	})
}

// unformatted are commands that answer nothing that a program would read. Those of the
// lab are for its developers.
var unformatted = map[string]string{
	"fairlead agent": "runs", "fairlead controller": "runs", "fairlead gateway": "runs", "fairlead demo": "tells what it does meanwhile",
	"fairlead image": "makes a file", "fairlead uninstall": "tells what it does meanwhile",
}

// verifyOutput: -o is a format, in which JSON and YAML go together; or the file
// that a command writes.
func verifyOutput(t *testing.T, path string, c *cobra.Command, output *pflag.Flag) {
	t.Helper()
	if output.Shorthand != "o" {
		t.Errorf("%s: --output has -o", path)
	}
	chosen, ok := output.Value.(*format)
	if !ok {
		if !strings.HasPrefix(output.Usage, "file") {
			t.Errorf("%s: -o is of formatFlag, or names a file", path)
		}
		return
	}
	if got := strings.Join(chosen.allowed, " "); got != "text json yaml" && got != "text wide json yaml" {
		t.Errorf("%s: formats are %s", path, got)
	}
	if complete, ok := c.GetFlagCompletionFunc("output"); !ok {
		t.Errorf("%s: -o is not completed", path)
	} else if values, _ := complete(c, nil, ""); len(values) != len(chosen.allowed) {
		t.Errorf("%s: -o is completed by %q", path, values)
	}
}

// TestCommandLines: what is not understood is refused with what to do next, and
// with an exit code that says that nothing was tried. So is what a cluster that cannot
// be reached is asked.
func TestCommandLines(t *testing.T) {
	const gone = " --kubeconfig testdata/unreachable.yaml"
	for line, test := range map[string]struct {
		code int
		says []string
	}{
		"statis":                       {2, []string{`fairlead: "statis" is no command of fairlead; did you mean status?`, "next: fairlead --help"}},
		"lab nod":                      {2, []string{`"nod" is no command of fairlead lab; did you mean node?`, "next: fairlead lab --help"}},
		"debug frobnicate":             {2, []string{`"frobnicate" is no command of fairlead debug`, "next: fairlead debug --help"}},
		"status -o xml":                {2, []string{"not a format; text, wide, json, yaml are", "next: fairlead status --help"}},
		"status a b":                   {2, []string{"accepts at most 1 arg", "next: fairlead status --help"}},
		"plan":                         {2, []string{"required flag", "next: fairlead plan --help"}},
		"route --from a":               {2, []string{`fairlead: required flag(s) "to" not set`, "next: fairlead route --help"}},
		"route --from a --to b -4 -6":  {2, []string{"[ipv4 ipv6]", "next: fairlead route --help"}},
		"version --nothing":            {2, []string{"unknown flag: --nothing", "next: fairlead version --help"}},
		"status":                       {2, []string{"unknown: ", "--kubeconfig", "next: see whether the cluster can be reached"}},
		"status node1":                 {2, []string{"unknown: "}},
		"debug bundle":                 {1, []string{"fairlead debug bundle: no cluster is configured: give --kubeconfig or set KUBECONFIG", "next: "}},
		"debug bundle" + gone:          {1, []string{"fairlead debug bundle: listing nodes: ", "127.0.0.1:1", "next: see whether the cluster can be reached: kubectl get nodes"}},
		"preflight":                    {2, []string{"fairlead preflight: no cluster is configured", "next: "}},
		"preflight" + gone:             {2, []string{"fairlead preflight: ask the API server for its version: ", "127.0.0.1:1", "next: see whether the cluster can be reached: kubectl get nodes"}},
		"status" + gone:                {2, []string{"unknown: listing nodes: ", "next: see whether the cluster can be reached"}},
		"status node1" + gone:          {2, []string{"unknown: listing nodes: ", "next: kubectl get nodes"}},
		"check" + gone:                 {2, []string{"unknown: listing nodes: ", "next: see whether the cluster can be reached"}},
		"drops" + gone:                 {2, []string{"fairlead drops: listing nodes: ", "next: see whether the cluster can be reached"}},
		"dns top --once" + gone:        {2, []string{"fairlead dns top: listing nodes: ", "next: see whether the cluster can be reached"}},
		"dns trace x --from a" + gone:  {2, []string{"fairlead dns trace: listing nodes: ", "next: see whether the cluster can be reached"}},
		"route --from a --to b" + gone: {2, []string{"fairlead route: listing nodes: ", "next: see whether the cluster can be reached"}},
		"service show a" + gone:        {2, []string{"unknown: listing nodes: ", "next: see whether the cluster can be reached"}},
		"policy matrix" + gone:         {2, []string{"fairlead policy matrix: reading the Network: ", "next: see whether the cluster can be reached"}},
		"ingress list" + gone:          {2, []string{"fairlead ingress list: listing Ingresses: ", "next: see whether the cluster can be reached"}},
		"uninstall":                    {1, []string{"fairlead uninstall: no cluster is configured", "\n  next: see whether the cluster can be reached"}},
		"version":                      {0, []string{"fairlead v"}},
		"version -o yaml":              {0, []string{"\nversion: v"}},
		"":                             {0, []string{"See how the network does:", "Install and uninstall:", "Run in the cluster:", "Try and develop:"}},
		"debug":                        {0, []string{"bundle"}},
		"__complete status -o ":        {0, []string{"wide\njson\nyaml\n"}},
		"__complete debug ":            {0, []string{"bundle\t"}},
	} {
		t.Run(line, func(t *testing.T) {
			t.Parallel()
			text, code := program(t, "fairlead", strings.Fields(line)...)
			if strings.HasSuffix(line, " ") {
				text, code = program(t, "fairlead", append(strings.Fields(line), "")...)
			}
			if code != test.code {
				t.Errorf("exit code %d, want %d; it wrote\n%s", code, test.code, text)
			}
			for _, part := range test.says {
				if !strings.Contains("\n"+text, part) {
					t.Errorf("%q is not in\n%s", part, text)
				}
			}
		})
	}
}

// TestBundleOfNothing: a bundle that cannot be made costs nobody an older one.
func TestBundleOfNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bundle.tar.gz")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	text, code := program(t, "fairlead", "debug", "bundle", "--kubeconfig", "testdata/unreachable.yaml", "-o", file)
	if old, err := os.ReadFile(file); code != int(exitNoBundle) || string(old) != "old" {
		t.Errorf("exit code %d, the file has %q, %v; it wrote\n%s", code, old, err, text)
	}
}

// TestKubectlPlugin: as a plugin of kubectl, it calls itself so.
func TestKubectlPlugin(t *testing.T) {
	if text, code := program(t, "kubectl-fairlead", "status", "--help"); code != 0 || !strings.Contains(text, "kubectl fairlead status [NODE]") {
		t.Errorf("exit code %d:\n%s", code, text)
	}
	if text, code := program(t, "kubectl-fairlead", "nothing"); code != 2 || !strings.Contains(text, "kubectl fairlead: \"nothing\" is no command of kubectl fairlead\n  next: kubectl fairlead --help") {
		t.Errorf("exit code %d:\n%s", code, text)
	}
}

func TestTable(t *testing.T) {
	lines := &table{paint: func(column int, cell string) string {
		if column == 0 {
			return palette{true}.bad(cell)
		}
		return cell
	}}
	lines.add("A", "LONG HEAD", "C")
	lines.add("größer", "b", "")
	var out bytes.Buffer
	if err := lines.write(&out); err != nil {
		t.Fatal(err)
	}
	if want := "A        LONG HEAD   C\n\x1b[31mgrößer\x1b[0m   b\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

// TestColours: none without a terminal, and none for who does not want them. Progress
// is told on terminals only, too.
func TestColours(t *testing.T) {
	if paletteOf(&bytes.Buffer{}).on || progressTo(&bytes.Buffer{}) != io.Discard {
		t.Error("a buffer is no terminal")
	}
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no pseudo terminal can be had: %v", err)
	}
	defer terminal.Close()
	if progressTo(terminal) != terminal {
		t.Error("a terminal is told of progress")
	}
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if !paletteOf(terminal).on {
		t.Error("a terminal has colours")
	}
	t.Setenv("TERM", "dumb")
	if paletteOf(terminal).on {
		t.Error("a dumb terminal has none")
	}
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "1")
	if paletteOf(terminal).on {
		t.Error("NO_COLOR is set")
	}
}
