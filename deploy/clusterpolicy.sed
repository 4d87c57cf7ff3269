# Makes the kind ClusterNetworkPolicy of what controller-gen makes of its Go types
# (sigs.k8s.io/network-policy-api): without what is of its experimental channel,
# which Fairlead does not know, so that the API server refuses it.
/^ *controller-gen.kubebuilder.io\/version:/c\
    api-approved.kubernetes.io: https://github.com/kubernetes-sigs/network-policy-api/pull/347\
    policy.networking.k8s.io/channel: standard
/^ \{26\}domainNames:$/,/^ \{26\}namespaces:$/{
/^ \{26\}namespaces:$/!d
}
/^ \{26\}nodes:$/,/^ \{26\}pods:$/{
/^ \{26\}pods:$/!d
}
/^ *x-kubernetes-validations:$/{
N
/networks\/nodes\/domainNames/{
N
N
N
N
d
}
}
