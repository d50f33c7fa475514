{{/* What every pod of the release has in common. */}}

{{- define "marquee.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.security.userId }}
runAsGroup: {{ .Values.security.groupId }}
fsGroup: {{ .Values.security.groupId }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "marquee.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* A container that gives a volume to the pods' user, where security.takeVolumes asks for it: the
only one that runs as root. Call with (list $ volume path). */}}
{{- define "marquee.takeVolume" -}}
{{- $ := index . 0 -}}
{{- $owner := printf "%v:%v" $.Values.security.userId $.Values.security.groupId -}}
{{- if $.Values.security.takeVolumes -}}
- name: take-{{ index . 1 }}
  image: {{ include "marquee.image" $ }}
  imagePullPolicy: {{ $.Values.image.pullPolicy }}
  command: [bash, -c]
  args: ['[ "$(stat -c %u:%g {{ index . 2 }})" = {{ $owner }} ] || chown -R {{ $owner }} {{ index . 2 }}']
  resources:
    {{- include "marquee.resources" (dict "cpu" "50m" "memory" "64Mi") | nindent 4 }}
  securityContext:
    runAsUser: 0
    runAsNonRoot: false
    allowPrivilegeEscalation: false
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
      add: [CHOWN, DAC_OVERRIDE]
    seccompProfile:
      type: RuntimeDefault
  volumeMounts:
    - name: {{ index . 1 }}
      mountPath: {{ index . 2 }}
{{- end -}}
{{- end -}}

{{- define "marquee.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Request = limit. Call with (dict "cpu" ... "memory" ...). */}}
{{- define "marquee.resources" -}}
requests:
  cpu: {{ .cpu | quote }}
  memory: {{ .memory | quote }}
limits:
  cpu: {{ .cpu | quote }}
  memory: {{ .memory | quote }}
{{- end -}}

{{/* The same with the GPUs of training. Call with (list $ cpuAndMemory). */}}
{{- define "marquee.gpuResources" -}}
{{- $gpu := (index . 0).Values.training.gpu -}}
{{- $resources := include "marquee.resources" (index . 1) | fromYaml -}}
{{- range $part := tuple "requests" "limits" }}
{{- $_ := set (index $resources $part) $gpu.resource (toString $gpu.count) }}
{{- end }}
{{- toYaml $resources -}}
{{- end -}}

{{/* Where pods with GPUs run. */}}
{{- define "marquee.gpuPlace" -}}
{{- with .Values.training.gpu -}}
{{- with .runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}
{{- end -}}

{{/* Address and credentials of the bundle store. */}}
{{- define "marquee.storeEnv" -}}
- name: MARQUEE_STORE
  value: {{ .Values.store.url | default "/store" | quote }}
{{- if or .Values.store.url .Values.training.feedback.log }}
- name: AWS_REGION
  value: {{ .Values.store.s3.region | quote }}
{{- with .Values.store.s3.endpoint }}
- name: AWS_ENDPOINT_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.store.s3.existingSecret }}
{{- range tuple "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.store.s3.existingSecret }}
      key: {{ . }}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "marquee.mlflowEnv" -}}
{{- if .Values.mlflow.enabled }}
- name: MLFLOW_TRACKING_URI
  value: {{ printf "http://%s-mlflow:5000" (include "marquee.fullname" .) | quote }}
{{- else if .Values.mlflow.externalUrl }}
- name: MLFLOW_TRACKING_URI
  value: {{ .Values.mlflow.externalUrl | quote }}
{{- with .Values.mlflow.existingSecret }}
{{- range tuple "MLFLOW_TRACKING_USERNAME" "MLFLOW_TRACKING_PASSWORD" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef:
      name: {{ $.Values.mlflow.existingSecret }}
      key: {{ . }}
{{- end }}
{{- end }}
{{- else }}
- name: MLFLOW_TRACKING_URI
  value: sqlite:////tmp/mlflow.db
{{- end }}
{{- end -}}

{{- define "marquee.storeVolume" -}}
{{- if not .Values.store.url }}
- name: store
  persistentVolumeClaim:
    claimName: {{ include "marquee.storeClaim" . }}
{{- end }}
{{- end -}}

{{- define "marquee.storeMount" -}}
{{- if not .Values.store.url }}
- name: store
  mountPath: /store
{{- end }}
{{- end -}}

{{/* A claim's class: "" is the cluster's default, "-" is none. */}}
{{- define "marquee.storageClass" -}}
{{- if eq . "-" }}
storageClassName: ""
{{- else if . }}
storageClassName: {{ . | quote }}
{{- end }}
{{- end -}}

{{/* `ping` of a Redis on (list host port), with the password of $PASSWORD, without a client. */}}
{{- define "marquee.redisPing" -}}
exec 3<>/dev/tcp/{{ index . 0 }}/{{ index . 1 }} && printf 'AUTH %s\r\nPING\r\n' "$PASSWORD" >&3 && read -r -t 2 -u 3 auth && read -r -t 2 -u 3 pong && [[ "$pong" == +PONG* ]]
{{- end -}}
