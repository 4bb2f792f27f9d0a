package k8s_test

import (
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	batchv1 "k8s.io/api/batch/v1"
)

// The workers of a fleet come and go with the queue; the secret has the file that names the shards.
func TestFleetWorkers(t *testing.T) {
	t.Parallel()
	objects := build(t, "fleet")
	if all := pods(objects); len(all) != 1 {
		t.Errorf("there are %d pods", len(all))
	}
	spec := find[appsv1.Deployment](t, objects, "orphan-cleaner").Spec
	c := spec.Template.Spec.Containers[0]
	if spec.Replicas != nil || !slices.Equal(c.Args, []string{"fleet", "serve", "--fleet=" + c.VolumeMounts[0].MountPath + "/fleet.yaml"}) ||
		spec.Template.Spec.Volumes[0].Secret.SecretName != "orphan-cleaner-fleet" || c.Ports[0].ContainerPort != 9091 {
		t.Errorf("%+v", spec)
	}
	if !is(spec.Template.Spec.TerminationGracePeriodSeconds, 30) {
		t.Error("a worker takes up to 20 s to give its jobs back")
	}
	scaler := find[autoscalingv2.HorizontalPodAutoscaler](t, objects, "orphan-cleaner").Spec
	if scaler.ScaleTargetRef.Name != "orphan-cleaner" || scaler.ScaleTargetRef.Kind != "Deployment" || !is(scaler.MinReplicas, 2) || scaler.Metrics[0].External.Metric.Name != "orphan_cleaner_fleet_jobs" {
		t.Errorf("%+v", scaler)
	}
}

// Each index has its shard, and its exit status decides: wrong settings end the job, a
// refusal this shard, and another run is waited for.
func TestIndexed(t *testing.T) {
	t.Parallel()
	objects := build(t, "indexed")
	if all := pods(objects); len(all) != 1 {
		t.Errorf("there are %d pods", len(all))
	}
	job := find[batchv1.CronJob](t, objects, "orphan-cleaner").Spec.JobTemplate.Spec
	if !is(job.CompletionMode, batchv1.IndexedCompletion) || !is(job.Completions, 8) || !is(job.BackoffLimitPerIndex, 1) || !is(job.MaxFailedIndexes, 2) || job.BackoffLimit != nil {
		t.Errorf("%+v", job)
	}
	actions := map[int32]batchv1.PodFailurePolicyAction{}
	for _, rule := range job.PodFailurePolicy.Rules {
		if rule.OnExitCodes != nil {
			if !is(rule.OnExitCodes.ContainerName, job.Template.Spec.Containers[0].Name) || rule.OnExitCodes.Operator != batchv1.PodFailurePolicyOnExitCodesOpIn {
				t.Errorf("%+v", rule)
			}
			for _, status := range rule.OnExitCodes.Values {
				actions[status] = rule.Action
			}
		}
	}
	if len(actions) != 3 || actions[2] != batchv1.PodFailurePolicyActionFailJob || actions[3] != batchv1.PodFailurePolicyActionFailIndex || actions[4] != batchv1.PodFailurePolicyActionIgnore {
		t.Errorf("%v", actions)
	}
	c := job.Template.Spec.Containers[0]
	if !strings.HasSuffix(c.Args[1], "="+c.VolumeMounts[0].MountPath+"/$(JOB_COMPLETION_INDEX)") || job.Template.Spec.RestartPolicy != "Never" {
		t.Errorf("%v", c.Args)
	}
}
