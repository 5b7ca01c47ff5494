"""Every form in which a policy leaves the host: a bundle with its C, image and page, and TensorFlow Lite."""
