# Makes the chart's template of dns.yaml.
1i{{- /* Made of deploy/dns.yaml: go generate ./deploy */ -}}
1i{{- if .Values.dns.enabled }}
s|image: ghcr.io/fairlead-net/fairlead:dev|image: {{ .Values.image.repository }}:{{ .Values.image.tag }}|
s|imagePullPolicy: IfNotPresent|imagePullPolicy: {{ .Values.image.pullPolicy }}|
s|cpu: 50m|cpu: {{ .Values.dns.cpu }}|
$a{{- end }}
