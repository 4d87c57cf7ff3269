package routing

import (
	"net/http"
	"net/http/httptest"
	"testing"

	plan "github.com/fairlead-net/fairlead/plan/gateway"
)

// TestJudgeElsewhere: who is asked about requests is never this machine.
func TestJudgeElsewhere(t *testing.T) {
	asked := false
	judge := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked = true }))
	defer judge.Close()
	for _, here := range []bool{true, false} {
		asked = false
		response, err := newExternal(&plan.ExternalAuth{}, here).client.Get(judge.URL)
		if err == nil {
			response.Body.Close()
		}
		if asked != here {
			t.Errorf("where this is allowed (%v), it was asked: %v, %v", here, asked, err)
		}
	}
}
