package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion returns fairlead.io/v1alpha1.
func GroupVersion() schema.GroupVersion {
	return schema.GroupVersion{Group: "fairlead.io", Version: "v1alpha1"}
}

// AddToScheme makes the kinds known to a scheme. It returns nil always; the
// error is there for the users of runtime.NewSchemeBuilder.
func AddToScheme(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion(), &Network{}, &NetworkList{}, &NodeNetwork{}, &NodeNetworkList{})
	metav1.AddToGroupVersion(scheme, GroupVersion())
	return nil
}
