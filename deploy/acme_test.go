package deploy

import (
	"bytes"
	"os"
	"os/exec"
	"reflect"
	"testing"
)

// TestACMEIsNarrow: what orders certificates writes Secrets of one namespace, in which
// nothing runs, and the chart has that only if it is asked for.
func TestACMEIsNarrow(t *testing.T) {
	want := objects(t, GatewayACME)
	const namespace, role, binding = "Namespace /fairlead-certificates", "Role fairlead-certificates/fairlead-gateway", "RoleBinding fairlead-certificates/fairlead-gateway"
	if len(want) != 3 || want[namespace] == nil || want[binding] == nil {
		t.Fatalf("there are %v", want)
	}
	rules := []any{map[string]any{"apiGroups": []any{""}, "resources": []any{"secrets"}, "verbs": []any{"create", "update", "delete"}}}
	if got := want[role]["rules"]; !reflect.DeepEqual(got, rules) {
		t.Errorf("it may %v", got)
	}
	gateway := func(values map[string]any) map[string]any { return values["gateway"].(map[string]any) }
	for key := range render(t, func(values map[string]any) { gateway(values)["enabled"] = true }) {
		if want[key] != nil {
			t.Errorf("the chart has %s unasked", key)
		}
	}
	all := render(t, func(values map[string]any) {
		gateway(values)["enabled"], gateway(values)["acme"] = true, map[string]any{"enabled": true}
	})
	for key := range want {
		if !reflect.DeepEqual(all[key], want[key]) {
			t.Errorf("%s of the chart is %v", key, all[key])
		}
	}
	template, err := os.ReadFile(chart + "templates/gateway-acme.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if made, err := exec.Command("sed", "-f", "helm/gateway-acme.sed", "gateway-acme.yaml").Output(); err != nil || !bytes.Equal(made, template) {
		t.Errorf("the chart is not made of gateway-acme.yaml: run go generate ./deploy (%v)", err)
	}
}
