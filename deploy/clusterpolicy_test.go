package deploy

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

const clusterPolicyKind = "CustomResourceDefinition /clusternetworkpolicies.policy.networking.k8s.io"

// TestClusterPolicyKind: the kind is that of the module whose types are used, of each
// channel, but for the descriptions.
func TestClusterPolicyKind(t *testing.T) {
	for channel, file := range map[string]string{"standard": "clusternetworkpolicy.yaml", "experimental": "clusternetworkpolicy-experimental.yaml"} {
		t.Run(channel, func(t *testing.T) { compareClusterPolicyKind(t, channel, file) })
	}
}

func compareClusterPolicyKind(t *testing.T, channel, file string) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/network-policy-api").Output()
	if err != nil {
		t.Fatal(err)
	}
	read := func(path string) map[string]any {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return objects(t, text)[clusterPolicyKind]
	}
	want := read(filepath.Join(strings.TrimSpace(string(dir)), "config/crd/"+channel+"/policy.networking.k8s.io_clusternetworkpolicies.yaml"))
	got := read(file)
	if want == nil || got == nil {
		t.Fatal("one of them is not there")
	}
	if differ := undescribed(got["spec"]); !reflect.DeepEqual(differ, undescribed(want["spec"])) {
		text, _ := yaml.Marshal(differ)
		t.Errorf("%s is another kind than upstream's: run go generate ./deploy, and mend clusterpolicy.sed if it is not that; it is\n%s", file, text)
	}
	const approved = "api-approved.kubernetes.io" // without it, the API server takes no kind of *.k8s.io
	if a, b := annotation(got, approved), annotation(want, approved); a != b || a == "" {
		t.Errorf("the annotation %s is %q, not %q", approved, a, b)
	}
}

func annotation(object map[string]any, name string) string {
	annotations, _ := object["metadata"].(map[string]any)["annotations"].(map[string]any)
	text, _ := annotations[name].(string)
	return text
}

// undescribed is a schema without its descriptions.
func undescribed(from any) any {
	switch from := from.(type) {
	case map[string]any:
		to := map[string]any{}
		for key, value := range from {
			if _, text := value.(string); key != "description" || !text {
				to[key] = undescribed(value)
			}
		}
		return to
	case []any:
		to := make([]any, len(from))
		for i := range from {
			to[i] = undescribed(from[i])
		}
		return to
	}
	return from
}

// TestChartOfClusterPolicies: the chart brings the kind if it is told to.
func TestChartOfClusterPolicies(t *testing.T) {
	text, err := os.ReadFile("clusternetworkpolicy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	got := render(t, func(values map[string]any) { values["clusterNetworkPolicies"] = true })[clusterPolicyKind]
	if got == nil || annotation(got, "helm.sh/resource-policy") != "keep" {
		t.Errorf("it does not: %v", got["metadata"])
	}
	if want := objects(t, text)[clusterPolicyKind]; !reflect.DeepEqual(got["spec"], want["spec"]) {
		t.Error("it is not that of clusternetworkpolicy.yaml: run go generate ./deploy")
	}
}
