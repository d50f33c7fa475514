{{/* `marquee retrain` as a list of words, without --store (MARQUEE_STORE) and --work. */}}
{{- define "marquee.retrain" -}}
{{- $words := list "marquee" "retrain" -}}
{{- $t := .Values.training -}}
{{- if $t.data.existingClaim -}}
{{- $words = concat $words (list "--input" (printf "/ratings/%s" $t.data.path | trimSuffix "/")) -}}
{{- else -}}
{{- $s := $t.data.synthetic -}}
{{- $words = concat $words (list "--users" (toString $s.users) "--items" (toString $s.items) "--events" (toString $s.events)) -}}
{{- end -}}
{{- $words = concat $words (list "--epochs" (toString $t.epochs) "--max-drop" (toString $t.maxDrop)) -}}
{{- toJson $words -}}
{{- end -}}

{{- define "marquee.ratingsVolume" -}}
{{- with .Values.training.data.existingClaim }}
- name: ratings
  persistentVolumeClaim:
    claimName: {{ . }}
    readOnly: true
{{- end }}
{{- end -}}

{{- define "marquee.ratingsMount" -}}
{{- if .Values.training.data.existingClaim }}
- name: ratings
  mountPath: /ratings
  readOnly: true
{{- end }}
{{- end -}}

{{/* A pod that trains by itself on a Ray of its own.
Call with (dict "root" $ "component" ... "extra" (list of words) "resources" yaml). */}}
{{- define "marquee.trainingPod" -}}
{{- $ := .root -}}
metadata:
  labels:
    {{- include "marquee.selectorLabels" (list $ .component) | nindent 4 }}
spec:
  serviceAccountName: {{ include "marquee.serviceAccount" $ }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  restartPolicy: Never
  {{- include "marquee.pullSecrets" $ | nindent 2 }}
  securityContext:
    {{- include "marquee.podSecurity" $ | nindent 4 }}
  containers:
    - name: retrain
      image: {{ include "marquee.image" $ }}
      imagePullPolicy: {{ $.Values.image.pullPolicy }}
      command: {{ concat (include "marquee.retrain" $ | fromJsonArray) (list "--work" "/tmp/work") .extra | toJson }}
      env:
        - {name: HOME, value: /tmp}
        # A Ray of this pod alone.
        - {name: RAY_AUTH_MODE, value: disabled}
        {{- include "marquee.storeEnv" $ | nindent 8 }}
        {{- include "marquee.mlflowEnv" $ | nindent 8 }}
      resources:
        {{- .resources | nindent 8 }}
      securityContext:
        {{- include "marquee.containerSecurity" $ | nindent 8 }}
      volumeMounts:
        - {name: tmp, mountPath: /tmp}
        - {name: shared-memory, mountPath: /dev/shm}
        {{- include "marquee.storeMount" $ | nindent 8 }}
        {{- include "marquee.ratingsMount" $ | nindent 8 }}
  volumes:
    - name: tmp
      emptyDir:
        sizeLimit: {{ $.Values.training.scratch }}
    - name: shared-memory
      emptyDir:
        medium: Memory
        sizeLimit: 2Gi
    {{- include "marquee.storeVolume" $ | nindent 4 }}
    {{- include "marquee.ratingsVolume" $ | nindent 4 }}
{{- end -}}
