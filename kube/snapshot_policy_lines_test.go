package kube

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/fairlead-net/fairlead/model"
)

// TestPolicyLines: they say what the documents say, and leave no garbage.
func TestPolicyLines(t *testing.T) {
	lines := &policyLines{}
	plain := convertPolicy(sharingPolicyOf(t, "a")).value
	unknown := *plain
	unknown.Pods.Requirements = []model.Requirement{{Key: "a", Operator: model.Never}}
	all := []*model.Policy{plain, &unknown}
	for _, object := range randomPolicies() {
		all = append(all, convertPolicy(object).value)
	}
	for i, p := range all {
		document, err := json.Marshal(policyObjectOf(p))
		if err != nil {
			t.Fatal(err)
		}
		line, err := lines.write(p)
		if err != nil {
			t.Fatal(err)
		}
		var got, want any
		if err := json.Unmarshal(line, &got); err != nil {
			t.Fatalf("policy %d: %v in %s", i, err, line)
		}
		if err := json.Unmarshal(document, &want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("policy %d is %s, not %s", i, line, document)
		}
	}
	if n := testing.AllocsPerRun(100, func() { _, _ = lines.write(plain) }); n > 0 {
		t.Errorf("%.0f allocations for a policy", n)
	}
}
