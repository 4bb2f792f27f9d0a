{{- define "orphan-cleaner.labels" -}}
app.kubernetes.io/name: orphan-cleaner
app.kubernetes.io/part-of: messaging-service
{{- end }}

{{- define "orphan-cleaner.meta" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "orphan-cleaner.labels" . | nindent 2 }}
{{- end }}

{{- /* A pod's template: of root, component, args, secret; the rest of the spec is in more. */}}
{{- define "orphan-cleaner.pod" -}}
metadata:
  labels:
    {{- include "orphan-cleaner.labels" . | nindent 4 }}
    app.kubernetes.io/component: {{ .component }}
  {{- if ne .component "migrate" }}
  annotations:
    # Other settings, other pods.
    checksum/settings: {{ include "orphan-cleaner.settings" .root | sha256sum }}
  {{- end }}
spec:
  serviceAccountName: orphan-cleaner
  automountServiceAccountToken: false
  {{- with .more }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile:
      type: RuntimeDefault
  containers:
    - name: orphan-cleaner
      image: {{ .root.Values.image.repository }}:{{ .root.Values.image.tag | default .root.Chart.AppVersion }}
      args: {{ toJson .args }}
      {{- if eq .component "migrate" }}
      env:
        - name: DATABASE_URL_FILE
          value: /etc/orphan-cleaner/database/url
      {{- else }}
      envFrom:
        - configMapRef:
            name: orphan-cleaner
      {{- end }}
      {{- with .container }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities:
          drop: [ALL]
      resources:
        requests:
          cpu: {{ eq .component "oncall" | ternary "10m" "300m" }}
          memory: {{ eq .component "oncall" | ternary "32Mi" "128Mi" }}
        limits:
          memory: 256Mi
      volumeMounts:
        - name: database
          mountPath: /etc/orphan-cleaner/database
          readOnly: true
        {{- if eq .component "oncall" }}
        - name: migrator
          mountPath: /etc/orphan-cleaner/migrator
          readOnly: true
        {{- end }}
  volumes:
    - name: database
      secret:
        secretName: {{ .secret }}
        defaultMode: 0440
    {{- if eq .component "oncall" }}
    - name: migrator
      secret:
        secretName: {{ .root.Values.secrets.migrator }}
        defaultMode: 0440
    {{- end }}
{{- end }}

{{- define "orphan-cleaner.settings" -}}
DATABASE_URL_FILE: /etc/orphan-cleaner/database/url
{{- if and (eq .Values.mode "cron") .Values.pushgatewayUrl }}
ORPHAN_CLEANER_PUSHGATEWAY_URL: {{ .Values.pushgatewayUrl | quote }}
{{- end }}
{{- range $name, $value := .Values.settings }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end }}
