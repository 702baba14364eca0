// Package workflow has service.yml, a workflow of GitHub for the repository of a service: from the test of its rules to
// the deployment. The test of this package runs its steps.
package workflow
