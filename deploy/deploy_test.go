package deploy

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// document is what the tests look at.
type document struct {
	Kind     string
	Metadata struct{ Namespace, Name string }
	Spec     struct {
		Template struct {
			Spec struct {
				HostNetwork        bool
				DNSPolicy          string
				ServiceAccountName string
			}
		}
	}
	Rules []struct{ APIGroups, Resources, Verbs []string }
}

func documents(t *testing.T) []document {
	t.Helper()
	var all []document
	for i, text := range bytes.Split(Manifest, []byte("\n---\n")) {
		var d document
		if err := yaml.Unmarshal(text, &d); err != nil {
			t.Fatalf("document %d: %v", i+1, err)
		}
		if d.Kind == "" || d.Metadata.Name == "" {
			t.Errorf("document %d has no kind or no name", i+1)
		}
		all = append(all, d)
	}
	return all
}

func TestManifestIsCurrent(t *testing.T) {
	parts, err := filepath.Glob("crd/*.yaml")
	if err != nil || len(parts) == 0 {
		t.Fatalf("no kinds: %v", err)
	}
	var want []byte
	for _, part := range append(parts, "base.yaml") {
		content, err := os.ReadFile(part)
		if err != nil {
			t.Fatal(err)
		}
		want = append(want, content...)
	}
	if !bytes.Equal(Manifest, want) {
		t.Error("fairlead.yaml is not made of crd/ and base.yaml: run go generate ./api/... ./deploy")
	}
	if len(Manifest) > 100<<10 {
		t.Errorf("the manifest has %d bytes, more than 100 KiB", len(Manifest))
	}
}

// TestManifestStandsAlone: what makes the pod network must not need it.
func TestManifestStandsAlone(t *testing.T) {
	workloads := 0
	for _, d := range documents(t) {
		if d.Kind != "DaemonSet" && d.Kind != "Deployment" {
			continue
		}
		workloads++
		pod := d.Spec.Template.Spec
		if !pod.HostNetwork || pod.DNSPolicy != "Default" {
			t.Errorf("%s %s needs the network that it makes", d.Kind, d.Metadata.Name)
		}
		if pod.ServiceAccountName != d.Metadata.Name {
			t.Errorf("%s %s runs as %q", d.Kind, d.Metadata.Name, pod.ServiceAccountName)
		}
	}
	if workloads != 2 {
		t.Errorf("%d workloads, want 2", workloads)
	}
}

// TestRolesAreNarrow: nobody gets everything, deletes, or reads secrets.
func TestRolesAreNarrow(t *testing.T) {
	for _, d := range documents(t) {
		for _, rule := range d.Rules {
			all := strings.Join(append(append(rule.APIGroups, rule.Resources...), rule.Verbs...), " ")
			for _, word := range []string{"*", "delete", "secrets", "patch"} {
				if strings.Contains(all, word) {
					t.Errorf("%s %s has %s in %s", d.Kind, d.Metadata.Name, word, all)
				}
			}
		}
	}
}
