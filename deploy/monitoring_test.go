package deploy

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// metrics are those that docs/observe.md has, with their labels. Tests of the
// agent and of the controller hold that these are theirs.
func metrics(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../docs/observe.md")
	if err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	row := regexp.MustCompile("(?m)^\\| `((?:fairlead|kubeproxy)_\\w+)` \\| (\\w+) \\| ([^|]*) \\|")
	for _, match := range row.FindAllStringSubmatch(string(text), -1) {
		labels := regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(match[3], -1)
		names := []string{match[2]}
		for _, label := range labels {
			names = append(names, label[1])
		}
		all[match[1]] = names // the type, and then the labels
	}
	return all
}

// verifyExpression holds that an expression names what there is: metrics of ours
// in their form, with labels that they have or that a scrape adds.
func verifyExpression(t *testing.T, where, expression string, known map[string][]string) {
	t.Helper()
	use := regexp.MustCompile(`\b((?:fairlead|kubeproxy)_\w+)(?:\{([^}]*)\})?`)
	var labels []string
	for _, match := range use.FindAllStringSubmatch(expression, -1) {
		name, suffix := match[1], ""
		if _, ok := known[name]; !ok {
			for _, s := range []string{"_bucket", "_count", "_sum"} {
				base, ok := strings.CutSuffix(name, s)
				if ok && len(known[base]) > 0 && (known[base][0] == "histogram" || known[base][0] == "summary" && s != "_bucket") {
					name, suffix = base, s
				}
			}
		}
		of, ok := known[name]
		switch {
		case !ok:
			t.Errorf("%s: there is no metric %s in %s", where, match[1], expression)
			continue
		case of[0] == "histogram" && suffix == "":
			t.Errorf("%s: %s is a histogram, of which there are only _bucket, _count and _sum: %s", where, name, expression)
		case of[0] == "summary" && suffix == "":
			t.Errorf("%s: %s is a summary, of which there are only _count and _sum: %s", where, name, expression)
		case of[0] == "counter" && !regexp.MustCompile(`(rate|increase)\(`+name).MatchString(expression):
			t.Errorf("%s: %s is a counter, whose rate counts: %s", where, name, expression)
		}
		has := append(slices.Clone(of[1:]), "instance", "node", "job")
		if suffix == "_bucket" {
			has = append(has, "le")
		}
		for _, label := range regexp.MustCompile(`(\w+)\s*(?:=~|!~|!=|=)`).FindAllStringSubmatch(match[2], -1) {
			if !slices.Contains(has, label[1]) {
				t.Errorf("%s: %s has no label %s: %s", where, name, label[1], expression)
			}
		}
		labels = append(labels, has...)
	}
	for _, by := range regexp.MustCompile(`\b(?:by|without)\s*\(([^)]*)\)`).FindAllStringSubmatch(expression, -1) {
		for _, label := range strings.Split(by[1], ",") {
			if label = strings.TrimSpace(label); len(labels) > 0 && !slices.Contains(labels, label) && label != "version" {
				t.Errorf("%s: nothing has the label %s: %s", where, label, expression)
			}
		}
	}
}

// alert is a rule as Prometheus reads it.
type alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

func alerts(t *testing.T) []alert {
	t.Helper()
	var file struct {
		Groups []struct {
			Name  string  `json:"name"`
			Rules []alert `json:"rules"`
		} `json:"groups"`
	}
	text, err := os.ReadFile("monitoring/rules.yaml")
	if err == nil {
		err = yaml.UnmarshalStrict(text, &file)
	}
	if err != nil || len(file.Groups) != 1 {
		t.Fatalf("rules.yaml: %v, %d groups", err, len(file.Groups))
	}
	return file.Groups[0].Rules
}

// TestAlerts: each alert names metrics that there are, says what to do, is
// tested, and is in the documentation.
func TestAlerts(t *testing.T) {
	known := metrics(t)
	docs, err := os.ReadFile("../docs/observe.md")
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile("monitoring/rules_test.yaml")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, a := range alerts(t) {
		if seen[a.Alert] || !strings.HasPrefix(a.Alert, "Fairlead") {
			t.Errorf("alert %s is there twice, or does not say whose it is", a.Alert)
		}
		seen[a.Alert] = true
		verifyExpression(t, a.Alert, a.Expr, known)
		if a.For != "" {
			if _, err := time.ParseDuration(a.For); err != nil {
				t.Errorf("%s: for: %v", a.Alert, err)
			}
		}
		if severity := a.Labels["severity"]; severity != "warning" && severity != "critical" {
			t.Errorf("%s: severity %q", a.Alert, severity)
		}
		for _, part := range []string{"summary", "description", "next"} {
			if a.Annotations[part] == "" {
				t.Errorf("%s has no %s", a.Alert, part)
			}
		}
		if !strings.Contains(string(docs), "`"+a.Alert+"`") {
			t.Errorf("%s is not in docs/observe.md", a.Alert)
		}
		// One test in which it is silent, and one in which it fires.
		if strings.Count(string(tests), "alertname: "+a.Alert+"}") != 1 || strings.Count(string(tests), "alertname: "+a.Alert+"\n    exp_alerts:") != 1 {
			t.Errorf("%s is not tested both ways in rules_test.yaml", a.Alert)
		}
	}
	for _, match := range regexp.MustCompile("`(Fairlead[A-Z]\\w+)`").FindAllStringSubmatch(string(docs), -1) {
		if !seen[match[1]] {
			t.Errorf("docs/observe.md has %s, which is no alert", match[1])
		}
	}
}

// TestAlertsFire runs the tests of the alerts.
func TestAlertsFire(t *testing.T) {
	promtool, err := exec.LookPath("promtool")
	if ours, missing := filepath.Abs("../bin/promtool"); err != nil && missing == nil {
		promtool, err = exec.LookPath(ours)
	}
	if err != nil {
		t.Skip("promtool is missing: make bin/promtool")
	}
	for _, args := range [][]string{{"check", "rules", "rules.yaml"}, {"test", "rules", "rules_test.yaml"}} {
		command := exec.Command(promtool, args...)
		command.Dir = "monitoring"
		if out, err := command.CombinedOutput(); err != nil {
			t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
}

// panel is one of a dashboard of Grafana.
type panel struct {
	ID      int    `json:"id"`
	Type    string `json:"type"`
	Title   string `json:"title"`
	GridPos struct{ H, W, X, Y int }
	Targets []struct {
		RefID      string `json:"refId"`
		Expr       string `json:"expr"`
		Datasource struct{ Type, UID string }
	} `json:"targets"`
}

// TestDashboard: it is JSON as Grafana imports it, and its panels show metrics
// that there are. All that there are are shown, or in an alert.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("monitoring", "dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Title, UID    string
		SchemaVersion int
		Panels        []panel
		Templating    struct{ List []struct{ Name, Type string } }
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		t.Fatal(err)
	}
	if dashboard.Title != "Fairlead" || dashboard.UID != "fairlead" || dashboard.SchemaVersion == 0 || len(dashboard.Templating.List) != 2 {
		t.Errorf("the dashboard is %s (%s), version %d, with variables %v", dashboard.Title, dashboard.UID, dashboard.SchemaVersion, dashboard.Templating.List)
	}
	known, ids, all := metrics(t), map[int]bool{}, ""
	for i, p := range dashboard.Panels {
		if ids[p.ID] || p.Title == "" || p.GridPos.X+p.GridPos.W > 24 || p.GridPos.W == 0 || p.GridPos.H == 0 {
			t.Errorf("panel %q: id %d, at %+v", p.Title, p.ID, p.GridPos)
		}
		ids[p.ID] = true
		if (p.Type == "row") != (len(p.Targets) == 0) {
			t.Errorf("panel %q shows nothing, or is a row that does", p.Title)
		}
		for _, other := range dashboard.Panels[:i] {
			a, b := p.GridPos, other.GridPos
			if a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H {
				t.Errorf("panels %q and %q lie on each other", p.Title, other.Title)
			}
		}
		for _, target := range p.Targets {
			if target.Datasource.UID != "${datasource}" || target.RefID == "" {
				t.Errorf("panel %q: %+v does not ask the chosen data source", p.Title, target)
			}
			verifyExpression(t, p.Title, target.Expr, known)
			all += target.Expr + "\n"
		}
	}
	for _, a := range alerts(t) {
		all += a.Expr + "\n"
	}
	for name := range known {
		// What is called as kube-proxy's is for who has dashboards of that.
		if !strings.Contains(all, name) && !unshown[name] && !strings.HasPrefix(name, "kubeproxy_") {
			t.Errorf("%s is neither in the dashboard nor in an alert", name)
		}
	}
}

// unshown are metrics for who looks closer.
var unshown = map[string]bool{
	"fairlead_apply_last_success_timestamp_seconds": true, "fairlead_status_last_success_timestamp_seconds": true,
	"fairlead_summary_last_success_timestamp_seconds": true, "fairlead_check_passed": true, "fairlead_problems": true,
	"fairlead_uplink_mtu_bytes": true, "fairlead_addresses_cooling": true, "fairlead_link_packets_total": true,
	"fairlead_pods_packets_total": true, "fairlead_rule_bytes_total": true, "fairlead_watch_up": true, "fairlead_watch_events_total": true,
}
