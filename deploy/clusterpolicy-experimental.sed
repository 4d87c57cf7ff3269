# Makes the kind ClusterNetworkPolicy with its experimental channel, whose domain
# names Fairlead knows, of what controller-gen makes of its Go types
# (sigs.k8s.io/network-policy-api).
/^ *controller-gen.kubebuilder.io\/version:/c\
    api-approved.kubernetes.io: https://github.com/kubernetes-sigs/network-policy-api/pull/347\
    policy.networking.k8s.io/channel: experimental
