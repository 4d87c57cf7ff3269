# Makes the chart's template of gateway.yaml.
1i{{- /* Made of deploy/gateway.yaml: go generate ./deploy */ -}}
1i{{- if .Values.gateway.enabled }}
s|image: ghcr.io/fairlead-net/fairlead:dev|image: {{ .Values.image.repository }}:{{ .Values.image.tag }}|
s|imagePullPolicy: IfNotPresent|imagePullPolicy: {{ .Values.image.pullPolicy }}|
s|type: ClusterIP|type: {{ .Values.gateway.serviceType }}|
s|cpu: 50m|cpu: {{ .Values.gateway.cpu }}|
$a{{- end }}
