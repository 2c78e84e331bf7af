"""Several devices on one processor, for fresh processes."""

TWO_CPUS = """
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
two = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, two)
"""
EIGHT_CPUS = "--xla_force_host_platform_device_count=8"
"""As `XLA_FLAGS`, for JAX."""
