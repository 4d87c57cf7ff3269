package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"path"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"text/template"

	"k8s.io/apimachinery/pkg/util/version"
	"sigs.k8s.io/yaml"
)

// The chart's templates use nothing but Go's own template language, so that this
// renders them as Helm does, without Helm's two hundred modules.

const chart = "helm/fairlead/"

// render returns the objects of the chart with the values of values.yaml, changed
// by edit, by kind, namespace and name.
func render(t *testing.T, edit func(values map[string]any)) map[string]map[string]any {
	t.Helper()
	text, err := os.ReadFile(chart + "values.yaml")
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]any{}
	if err := yaml.Unmarshal(text, &values); err != nil {
		t.Fatal(err)
	}
	edit(values)
	parsed, err := template.New("").Option("missingkey=error").ParseGlob(chart + "templates/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var all bytes.Buffer
	for _, one := range parsed.Templates() {
		all.WriteString("\n---\n")
		if err := one.Execute(&all, map[string]any{"Values": values}); err != nil {
			t.Fatal(err)
		}
	}
	return objects(t, all.Bytes())
}

func objects(t *testing.T, manifest []byte) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, text := range bytes.Split(manifest, []byte("\n---\n")) {
		object := map[string]any{}
		if err := yaml.Unmarshal(text, &object); err != nil {
			t.Fatalf("%v:\n%s", err, text)
		}
		if len(object) == 0 {
			continue
		}
		meta := object["metadata"].(map[string]any)
		namespace, _ := meta["namespace"].(string)
		key := object["kind"].(string) + " " + namespace + "/" + meta["name"].(string)
		if all[key] != nil {
			t.Errorf("%s is there twice", key)
		}
		all[key] = object
	}
	return all
}

// TestChartMetadata: Helm refuses a chart without some of these, and passes over a name
// that is misspelt.
func TestChartMetadata(t *testing.T) {
	text, err := os.ReadFile(chart + "Chart.yaml")
	if err != nil {
		t.Fatal(err)
	}
	has := map[string]string{}
	if err := yaml.Unmarshal(text, &has); err != nil {
		t.Fatal(err)
	}
	if has["apiVersion"] != "v2" || has["type"] != "application" || has["description"] == "" {
		t.Errorf("apiVersion %q, type %q, description %q", has["apiVersion"], has["type"], has["description"])
	}
	if has["name"] != path.Base(chart) {
		t.Errorf("its name is %q, and its directory %s", has["name"], chart)
	}
	for field, before := range map[string]string{"version": "", "appVersion": "v", "kubeVersion": ">="} {
		number, ok := strings.CutPrefix(has[field], before)
		if _, err := version.ParseSemantic(number); !ok || err != nil || strings.HasPrefix(number, "v") {
			t.Errorf("%s is %q: %v", field, has[field], err)
		}
	}
}

func TestChartIsCurrent(t *testing.T) {
	want, err := exec.Command("sed", "-f", "helm/chart.sed", "fairlead.yaml").Output()
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(chart + "templates/fairlead.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Error("the chart is not made of fairlead.yaml: run go generate ./deploy")
	}
}

// TestChartIsTheManifest: with its own values, the chart has the objects of the
// manifest.
func TestChartIsTheManifest(t *testing.T) {
	want, got := objects(t, Manifest), render(t, func(map[string]any) {})
	for key := range want {
		if !reflect.DeepEqual(got[key], want[key]) {
			t.Errorf("%s differs:\n%v\nin the manifest:\n%v", key, got[key], want[key])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d objects, the manifest has %d", len(got), len(want))
	}
}

// TestChartHasTheConfigMap: of the ConfigMap that the manifest reads, which may be
// there by hand for the manifest, and is the chart's if the chart has one, each key is a
// value of the chart.
func TestChartHasTheConfigMap(t *testing.T) {
	keys := map[string]bool{}
	for _, found := range regexp.MustCompile(`configMapKeyRef:\s+name: fairlead\s+key: (\w+)`).FindAllSubmatch(Manifest, -1) {
		keys[string(found[1])] = true
	}
	if len(keys) < 5 {
		t.Errorf("the manifest reads %v", keys)
	}
	for key := range keys {
		got := render(t, func(values map[string]any) {
			if values[key] != "" {
				t.Errorf("%s of values.yaml is %v", key, values[key])
			}
			values[key] = ":9810"
		})
		data := got["ConfigMap kube-system/fairlead"]["data"]
		if want := map[string]any{key: ":9810"}; !reflect.DeepEqual(data, want) {
			t.Errorf("with %s, the ConfigMap has %v", key, data)
		}
	}
}

// TestChartValues: each value changes what it says, and nothing else.
func TestChartValues(t *testing.T) {
	got := render(t, func(values map[string]any) {
		values["image"] = map[string]any{"repository": "registry.example/net", "tag": "v9", "pullPolicy": "Always"}
		values["apiservers"] = "[fd00::1]:6443,192.0.2.1:6443"
		values["agent"] = map[string]any{"cpu": "11m"}
		values["controller"] = map[string]any{"cpu": "12m", "replicas": 3}
	})
	configuration := got["ConfigMap kube-system/fairlead"]
	if data, _ := configuration["data"].(map[string]any); data["apiservers"] != "[fd00::1]:6443,192.0.2.1:6443" {
		t.Errorf("the ConfigMap is %v", configuration)
	}
	delete(got, "ConfigMap kube-system/fairlead")
	back := strings.NewReplacer(
		"registry.example/net:v9", "ghcr.io/fairlead-net/fairlead:dev", "imagePullPolicy: Always", "imagePullPolicy: IfNotPresent",
		"cpu: 11m", "cpu: 50m", "cpu: 12m", "cpu: 20m", "replicas: 3", "replicas: 1")
	changed := 0
	for key, want := range objects(t, Manifest) {
		text, err := yaml.Marshal(got[key])
		if err != nil {
			t.Fatal(err)
		}
		original := back.Replace(string(text))
		if original != string(text) {
			changed++
		}
		object := map[string]any{}
		if err := yaml.Unmarshal([]byte(original), &object); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(object, want) {
			t.Errorf("%s differs in more than the values:\n%s", key, text)
		}
	}
	if changed != 2 {
		t.Errorf("%d objects have values, want the DaemonSet and the Deployment", changed)
	}
	for _, word := range []string{"v9", "11m", "12m", "replicas: 3", "Always"} {
		text, err := yaml.Marshal(got)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(text), word) {
			t.Errorf("%q is nowhere", word)
		}
	}
}
