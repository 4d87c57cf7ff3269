# Makes the chart's template of gateway-acme.yaml.
1i{{- /* Made of deploy/gateway-acme.yaml: go generate ./deploy */ -}}
1i{{- if and .Values.gateway.enabled .Values.gateway.acme.enabled }}
$a{{- end }}
