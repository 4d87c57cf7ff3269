# Makes the chart's template of clusternetworkpolicy.yaml. The kind stays when the
# chart goes: with it would go the policies.
1i{{- if .Values.clusterNetworkPolicies }}
1i{{- /* Made of deploy/clusternetworkpolicy.yaml: go generate ./deploy */ -}}
/^  annotations:$/a\
    helm.sh/resource-policy: keep
$a{{- end }}
