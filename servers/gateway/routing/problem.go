package routing

import (
	"fmt"
	"strings"

	"github.com/fairlead-net/fairlead/model"
	plan "github.com/fairlead-net/fairlead/plan/gateway"
)

// mostWrong users are named of a Secret.
const mostWrong = 3

// Problems says what is wrong with what the plan names and does not have: users of
// Secrets, and Services of which no endpoint is ready. In no order.
func (r *Router) Problems() (all []model.Problem) {
	for auth, u := range r.users {
		all = append(all, u.problems(auth.Secret)...)
	}
	for of := range r.routes {
		if _, silent := r.silent[of.Backend]; !silent {
			continue
		}
		field := of.Field
		if !strings.HasSuffix(field, "ackend") {
			field += ".backend"
		}
		all = append(all, model.Problem{
			Kind: "Ingress", Namespace: of.From.Namespace, Name: of.From.Name, Field: field, Reason: "NoEndpoints",
			Message: fmt.Sprintf("Service %s has no endpoint that is ready, so requests are answered with 503", of.Backend.Service),
			Remedy:  "see why its pods are not ready: kubectl get endpointslices -n " + of.Backend.Service.Namespace + " -l kubernetes.io/service-name=" + of.Backend.Service.Name,
		})
	}
	return all
}

func (u *users) problems(secret plan.SecretKey) (all []model.Problem) {
	problem := model.Problem{Kind: "Secret", Namespace: secret.Namespace, Name: secret.Name}
	if len(u.wrong) > 0 {
		var texts []string
		for _, err := range u.wrong[:min(len(u.wrong), mostWrong)] {
			texts = append(texts, err.Error())
		}
		if more := len(u.wrong) - len(texts); more > 0 {
			texts = append(texts, fmt.Sprintf("and %d more", more))
		}
		problem.Reason, problem.Message = "UserNotUnderstood", "users are left out: "+strings.Join(texts, "; ")
		problem.Remedy = "write the line anew, with htpasswd -B"
		all = append(all, problem)
	}
	if u.closed != nil {
		problem.Reason, problem.Message = "NoUsers", "it has no users, so nobody may"
		problem.Remedy = "make it anew: htpasswd -cB auth NAME, and kubectl create secret generic " + secret.Name + " --from-file=auth"
		if u.secret == nil {
			problem.Message = "the Secret does not exist, so nobody may"
		}
		all = append(all, problem)
	}
	return all
}
