# Makes the chart's template of dns-service.yaml.
1i{{- /* Made of deploy/dns-service.yaml: go generate ./deploy */ -}}
1i{{- if and .Values.dns.enabled .Values.dns.clusterIP }}
s|clusterIP: 10.96.0.10|clusterIP: {{ .Values.dns.clusterIP }}|
$a{{- end }}
