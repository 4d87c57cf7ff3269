package agent

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/fairlead-net/fairlead/cni"
	"github.com/fairlead-net/fairlead/model"
)

var (
	webKey = model.PodKey{Namespace: "default", Name: "web"}
	webUID = "0b9a3c1e-7f64-4c8e-9d0c-000000000001"
)

// ofPod is a request with the UID that the kubelet gives.
func ofPod(command, container string) cni.Request {
	r := request(command, container)
	r.Args += ";K8S_POD_UID=" + webUID
	return r
}

// A pod that the watch has not told of is asked for, and in the snapshot when ADD
// returns: no other pod of its name.
func TestPodIsKnownWhenConnected(t *testing.T) {
	needNode(t)
	web := func(uid, label string) *model.Pod {
		return &model.Pod{PodKey: webKey, Node: testNode, UID: model.UIDOf(uid), Labels: model.LabelsOf(map[string]string{"is": label})}
	}
	elsewhere := web(webUID, "elsewhere")
	elsewhere.Node = "another"
	for _, test := range []struct {
		name     string
		watched  *model.Pod // before ADD
		answer   *model.Pod // of the API server
		fails    error
		asks     bool
		is       string // label of the pod in the snapshot; empty: none
		isolated bool   // it is not the one that is connected
	}{
		{"not watched", nil, web(webUID, "asked"), nil, true, "asked", false},
		{"watched", web(webUID, "watched"), web(webUID, "asked"), nil, false, "watched", false},
		{"another one watched", web("another", "before"), web(webUID, "asked"), nil, true, "asked", false},
		{"another one is there", web("another", "before"), web("another", "before"), nil, true, "before", true},
		{"it is elsewhere", nil, elsewhere, nil, true, "", true},
		{"no answer", nil, nil, errors.New("no API server"), true, "", true},
		{"no answer, another one watched", web("another", "before"), nil, errors.New("no API server"), true, "before", true},
	} {
		t.Run(test.name, func(t *testing.T) {
			cluster := newCluster("10.244.1.0/24")
			if test.watched != nil {
				cluster.pods = []*model.Pod{test.watched}
			}
			var mu sync.Mutex
			asked := 0
			cluster.read = func(_ context.Context, key model.PodKey) (*model.Pod, error) {
				mu.Lock()
				defer mu.Unlock()
				asked++
				if key != webKey {
					t.Errorf("asked for %s", key)
				}
				return test.answer, test.fails
			}
			a := start(t, cluster, t.TempDir())
			if reply := a.ask(t, ofPod("ADD", "web"), newPod(t, "web").netns); reply.Error != nil {
				t.Fatal(reply.Error)
			}
			snapshot := cluster.latest()
			attachment, _ := snapshot.Attachments.Get(keyOf("web"))
			if attachment == nil || attachment.UID != model.UIDOf(webUID) {
				t.Fatalf("the attachment is %+v", attachment)
			}
			if (snapshot.PodOf(attachment, testNode) == nil) != test.isolated {
				t.Errorf("its pod is %v", snapshot.PodOf(attachment, testNode))
			}
			label := ""
			if pod, ok := snapshot.Pods.Get(webKey); ok {
				label, _ = pod.Labels.Get("is")
			}
			mu.Lock()
			defer mu.Unlock()
			if label != test.is || (asked > 0) != test.asks {
				t.Errorf("the snapshot has the pod %q, want %q; asked %d times", label, test.is, asked)
			}
		})
	}
}

// A pod that was asked for goes with its attachment, lest it stays when the watch
// had told of its end before; one that the watch has told of since stays.
func TestAskedPodGoes(t *testing.T) {
	needNode(t)
	cluster := newCluster("10.244.1.0/24")
	a := start(t, cluster, t.TempDir())
	for _, told := range []bool{false, true} {
		if reply := a.ask(t, request("ADD", "web"), newPod(t, "web").netns); reply.Error != nil {
			t.Fatal(reply.Error)
		}
		if told {
			cluster.edit(func(s *model.Snapshot) {
				s.Pods = s.Pods.With(webKey, &model.Pod{PodKey: webKey, Node: testNode, Addresses: addrs("10.244.1.2")})
			})
		}
		if _, ok := cluster.latest().Pods.Get(webKey); !ok {
			t.Error("the pod is not known")
		}
		a.del(t, "web")
		if _, ok := cluster.latest().Pods.Get(webKey); ok != told {
			t.Errorf("told: %t, and the pod is there: %t", told, ok)
		}
	}
}

// Until policies are known, no pod is connected, and it is said why: what they
// forbid could be what it would do first.
func TestPoliciesUnknown(t *testing.T) {
	needNode(t)
	cluster := newCluster("10.244.1.0/24")
	cluster.policiesUnknown = true
	a := start(t, cluster, t.TempDir())
	r := request("ADD", "web")
	r.Timeout = 200 * time.Millisecond
	p := newPod(t, "web")
	said := a.ask(t, r, p.netns).Error
	if said == nil || said.Code != types.ErrTryAgainLater || !strings.Contains(said.Msg, "what policies forbid has not been read") {
		t.Errorf("got %v", said)
	}
	if devices := podDevices(t); len(devices) > 0 {
		t.Errorf("left: %v", devices)
	}
	cluster.edit(func(s *model.Snapshot) { s.PoliciesKnown = true })
	if reply := a.ask(t, request("ADD", "web"), p.netns); reply.Error != nil {
		t.Error(reply.Error)
	}
}
