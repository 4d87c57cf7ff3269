# Makes the chart's template of fairlead.yaml.
1i{{- /* Made of deploy/fairlead.yaml: go generate ./deploy */ -}}
s|image: ghcr.io/fairlead-net/fairlead:dev|image: {{ .Values.image.repository }}:{{ .Values.image.tag }}|
s|imagePullPolicy: IfNotPresent|imagePullPolicy: {{ .Values.image.pullPolicy }}|
s|cpu: 50m|cpu: {{ .Values.agent.cpu }}|
s|cpu: 20m|cpu: {{ .Values.controller.cpu }}|
s|replicas: 1$|replicas: {{ .Values.controller.replicas }}|
