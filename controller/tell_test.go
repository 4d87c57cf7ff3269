package controller

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairlead-net/fairlead/api/v1alpha1"
	"github.com/fairlead-net/fairlead/kube"
)

// refusing is an API server that takes Events, but not of namespaces that it has an
// answer for. It counts by namespace what it was to take. There are all objects, but for
// those of namespaces that are gone.
type refusing struct {
	answers map[string]metav1.Status
	asked   map[string]int
}

func (r *refusing) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	parts := strings.Split(request.URL.Path, "/") // /api/v1/namespaces/NAMESPACE/events
	namespace := parts[4]
	answer, refused := r.answers[namespace]
	if request.Method == http.MethodGet && answer.Reason != metav1.StatusReasonNotFound {
		fmt.Fprint(w, `{"metadata": {"uid": "u"}}`)
		return
	}
	r.asked[namespace]++
	if !refused {
		answer = metav1.Status{Status: metav1.StatusSuccess, Code: http.StatusCreated}
	}
	answer.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(answer.Code))
	_ = json.NewEncoder(w).Encode(answer)
}

func (r *refusing) client(t *testing.T) *kube.Client {
	t.Helper()
	server := httptest.NewServer(r)
	t.Cleanup(server.Close)
	file := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c}}], clusters: [{name: c, cluster: {server: %q}}]}`, server.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	client, err := kube.Connect(kube.Options{Kubeconfig: file})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// TestEventsThatAreRefused: an Event that is refused because of its namespace, or of
// whose object there is nothing any more, is given up, and one of the cluster is tried again; either way the others are
// written. When the API server takes nothing, it is asked once.
func TestEventsThatAreRefused(t *testing.T) {
	failure := func(code int, reason metav1.StatusReason, message string) metav1.Status {
		return metav1.Status{Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message}
	}
	gone := failure(http.StatusNotFound, metav1.StatusReasonNotFound, `namespaces "gone" not found`)
	ending := failure(http.StatusForbidden, metav1.StatusReasonForbidden, "because it is being terminated")
	broken := failure(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, "no store")
	for name, test := range map[string]struct {
		answers map[string]metav1.Status
		asked   map[string]int // at two looks
	}{
		"all are taken":          {nil, map[string]int{"default": 1, "ending": 1, "gone": 1, "there": 1}},
		"namespaces are gone":    {map[string]metav1.Status{"gone": gone, "ending": ending}, map[string]int{"default": 1, "ending": 1, "gone": 1, "there": 1}},
		"one of the cluster":     {map[string]metav1.Status{"default": ending}, map[string]int{"default": 2, "ending": 1, "gone": 1, "there": 1}},
		"the API server is down": {map[string]metav1.Status{"default": broken}, map[string]int{"default": 2}},
	} {
		t.Run(name, func(t *testing.T) {
			server := &refusing{test.answers, map[string]int{}}
			a := &aggregator{log: slog.New(slog.DiscardHandler), client: server.client(t), state: newState("test")}
			v := cluster(1)
			problems := []v1alpha1.Problem{{Kind: "Node", Name: "n0", Reason: "NoAddressLeft", Message: "x"}}
			for _, namespace := range []string{"ending", "gone", "there"} {
				problems = append(problems, v1alpha1.Problem{Kind: "Pod", Namespace: namespace, Name: "p", Reason: "PodOfAnotherNetwork", Message: "x"})
			}
			v.reports = v.reports.With("n0", report(metav1.ConditionTrue, now.Add(time.Hour), problems...))
			for _, at := range []time.Duration{0, settleTime, settleTime + time.Second} {
				v.now = now.Add(at)
				a.tell(t.Context(), v)
			}
			if got, want := fmt.Sprint(server.asked), fmt.Sprint(test.asked); got != want {
				t.Errorf("written to %s, want %s", got, want)
			}
			if a.herald.waiting() != (test.asked["default"] > 1) {
				t.Errorf("it waits: %t", a.herald.waiting())
			}
		})
	}
}
